"""What a file that is no image most likely is, told from its bytes."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"OggS")
_KNOWN_STARTS = {
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"DDS ": "DirectDraw",
    b"\x00\x00\x01\x00": "icon",
    b"\x00\x00\x02\x00": "cursor",
    b"\x01\xda": "SGI",
    b"BLP": "Blizzard texture",
}
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
_BITMAP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
# Bytes that `may_be_image` wants to see.
HEAD = 64


def is_heif(content: bytes) -> bool:
    """Return whether a file says that it is a HEIC or another HEIF that is no AVIF."""
    return content[4:8] == b"ftyp" and _boxed(content)[0] == "heic_needs_plugin"


def may_be_image(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of an image, however broken the rest."""
    if head.startswith(b"BM"):
        # Two letters may begin any text.
        return int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS
    if head[4:8] == b"ftyp":
        return _boxed(head)[0] != "video_not_image"
    return (
        head.startswith((*_IMAGES, b"II+\x00", b"MM\x00+"))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
        or _other_kind(head) == ("format_not_allowed", "JPEG 2000")
    )


def reason_for_unknown(content: bytes, error: Exception, pixel_limit: int) -> tuple[str, str]:
    """Find the status and detail for bytes that no allowed decoder opens."""
    size = _declared_size(content)
    if size and size[0] * size[1] == 0:
        return "bad_dimensions", f"{size[0]} x {size[1]} pixels"
    if size and size[0] * size[1] > pixel_limit:
        return "too_many_pixels", f"{size[0]} x {size[1]} pixels, limit {pixel_limit}"
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if "MAX_TEXT" in str(error):
        return "text_chunk_limit", detail
    if content[4:8] == b"ftyp":
        return _boxed(content)
    if content.startswith(_IMAGES) or content[8:12] == b"WEBP":
        return ("truncated", detail) if looks_truncated(content) else ("corrupt", detail)
    return _other_kind(content)


def _other_kind(content: bytes) -> tuple[str, str]:
    head = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml", b"<svg")):
        is_drawing = b"<svg" in head
        return ("not_an_image", "SVG") if is_drawing else ("html_not_image", "a saved web page")
    if head.startswith(b"version https://git-lfs"):
        return "git_lfs_pointer", "fetch the real file with `git lfs pull`"
    if content.startswith(_VIDEO_STARTS) or content[8:12] == b"AVI ":
        return "video_not_image", ""
    for start, name in _KNOWN_STARTS.items():
        if content.startswith(start):
            return "format_not_allowed", name
    return "not_an_image", ""


def _boxed(content: bytes) -> tuple[str, str]:
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, 40, 4))]
    if b"avif" in brands or b"avis" in brands:
        return "corrupt", "AVIF"
    if any(brand in _HEIF_BRANDS for brand in brands):
        return "heic_needs_plugin", "HEIC: pip install 'archiveprobe[heic]', or convert it to JPEG"
    return "video_not_image", ""


def _declared_size(content: bytes) -> tuple[int, int] | None:
    """Width and height from a PNG's or AVIF's header, which Pillow may refuse without a reason."""
    at = 16 if content.startswith(b"\x89PNG") and content[12:16] == b"IHDR" else None
    if content[4:8] == b"ftyp" and b"avif" in content[8:40]:
        box = content.find(b"ispe", 0, 4096)
        at = box + 8 if box >= 0 else None
    if at is None or len(content) < at + 8:
        return None
    width, height = content[at : at + 4], content[at + 4 : at + 8]
    return int.from_bytes(width, "big"), int.from_bytes(height, "big")


def looks_truncated(content: bytes) -> bool:
    """Return whether the end that the format demands is missing, as after a broken download."""
    if content.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in content[-65536:]
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content[-4096:]
    if content.startswith(b"GIF8"):
        return b"\x3b" not in content[-16:]
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return len(content) < int.from_bytes(content[4:8], "little") + 8
    return is_heif(content) and _end_of_boxes(content) > len(content)


def _end_of_boxes(content: bytes) -> int:
    """Return where the last box of a HEIF file would end, by the sizes in the boxes' heads."""
    at = 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16], "big")
        if size < 8:
            # 0: the last one, to the end of the file, wherever that is.
            return len(content)
        at += size
    return at
