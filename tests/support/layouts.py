"""Archives in the layouts that people bring, made from the drawn one: labels stay, files move."""

import csv
import json
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.demo.archive import write_demo

POSITIVE = "destruction"
GERMAN = {"destruction": "Zerstört", "not_destruction": "Unbeschädigt", "": ""}


@dataclass(frozen=True)
class Drawn:
    """An image of the drawn archive: its number, its file, its label and its split."""

    number: int
    file: Path
    label: str
    split: str

    @property
    def stem(self) -> str:
        """Return a plain name without an extension."""
        return f"img_{self.number:04}"

    @property
    def name(self) -> str:
        """Return a plain name with the extension that its bytes deserve."""
        return self.stem + self.file.suffix.lower()


def draw(folder: Path, count: int) -> list[Drawn]:
    """Draw an archive into `folder` and list its images; labels of test rows are there too."""
    write_demo(folder, count=count)
    hidden = {row["image"]: row["label"] for row in _rows(folder / "test_labels.csv")}
    return [
        Drawn(
            number,
            folder / "images" / row["image"],
            row["label"] or hidden.get(row["image"], ""),
            row["split"],
        )
        for number, row in enumerate(_rows(folder / "labels.csv"))
    ]


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _write(file: Path, rows: list[dict[str, object]], **how: object) -> None:
    import pandas as pd

    pd.DataFrame(rows).to_csv(file, index=False, **how)  # type: ignore[call-overload]


def _copy(image: Drawn, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.file, target)


def kaggle(images: list[Drawn], folder: Path) -> None:
    """train.csv with 0 and 1, test.csv, sample_submission.csv with 0.5; ids have no extension."""
    for image in images:
        part = "test" if image.split == "test" else "train"
        _copy(image, folder / f"{part}_images" / image.name)
    known = [image for image in images if image.split != "test"]
    asked = [image for image in images if image.split == "test"]
    _write(
        folder / "train.csv",
        [{"id": image.stem, POSITIVE: int(image.label == POSITIVE)} for image in known],
    )
    _write(folder / "test.csv", [{"id": image.stem} for image in asked])
    _write(folder / "sample_submission.csv", [{"id": image.stem, POSITIVE: 0.5} for image in asked])
    _write(
        folder.parent / "solution.csv",
        [{"id": image.stem, POSITIVE: int(image.label == POSITIVE)} for image in asked],
    )


def codabench(images: list[Drawn], folder: Path) -> None:
    """One table with a split column; the template has label names and is handed in as a zip."""
    for image in images:
        _copy(image, folder / "images" / image.name)
    _write(
        folder / "labels.csv",
        [
            {
                "image": image.name,
                "label": "" if image.split == "test" else image.label,
                "split": image.split,
            }
            for image in images
        ],
    )
    _write(
        folder / "sample_submission.csv",
        [
            {"image": image.name, "label": "not_destruction"}
            for image in images
            if image.split == "test"
        ],
    )


def imagefolder(images: list[Drawn], folder: Path) -> None:
    """train/LABEL, val/LABEL and test/LABEL, as torchvision and Hugging Face read them."""
    parts = {"train": "train", "validation": "val", "test": "test"}
    for image in images:
        _copy(image, folder / parts[image.split] / image.label / image.name)


def class_folders(images: list[Drawn], folder: Path) -> None:
    """One folder per label, with umlauts and capitals, one of them named as macOS writes them."""
    for image in images:
        named = "" if image.split == "test" else image.label
        label = unicodedata.normalize("NFD", GERMAN[named]) or "unlabelled"
        _copy(image, folder / label / image.name)


def spreadsheet(images: list[Drawn], folder: Path) -> None:
    """A workbook with names that lack extensions, of images in nested folders."""
    import pandas as pd

    for image in images:
        _copy(image, folder / "Fotos" / f"2023-{image.number % 12 + 1:02}" / image.name)
    rows = [
        {
            "Datei": image.stem.upper(),
            "Zustand": "" if image.split == "test" else GERMAN[image.label],
            "Bemerkung": "Straße, Blick nach Süden" if image.number % 3 else "",
        }
        for image in images
    ]
    pd.DataFrame(rows).to_excel(folder / "Liste.xlsx", index=False)


def spreadsheet_cp1252(images: list[Drawn], folder: Path) -> None:
    """The same sheet as a European Excel saves it as CSV."""
    import pandas as pd

    spreadsheet(images, folder)
    table = pd.read_excel(folder / "Liste.xlsx", dtype=str, keep_default_na=False)
    (folder / "Liste.xlsx").unlink()
    table.to_csv(
        folder / "Liste.csv", sep=";", index=False, encoding="cp1252", lineterminator="\r\n"
    )


def huggingface(images: list[Drawn], folder: Path) -> None:
    """train/ and test/ with a metadata.jsonl each, whose file_name is relative to it."""
    for image in images:
        part = "test" if image.split == "test" else "train"
        _copy(image, folder / part / image.name)
        line = {"file_name": image.name, "text": f"image {image.number}"}
        if part == "train":
            line["label"] = image.label
        with (folder / part / "metadata.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


LAYOUTS: dict[str, Callable[[list[Drawn], Path], None]] = {
    "kaggle": kaggle,
    "codabench": codabench,
    "imagefolder": imagefolder,
    "class_folders": class_folders,
    "spreadsheet": spreadsheet,
    "spreadsheet_cp1252": spreadsheet_cp1252,
    "huggingface": huggingface,
}
