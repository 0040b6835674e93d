"""Write docs/look.png: the page of the demo archive, as a browser shows it.

python tests/support/picture.py [PAGE]   default: demo-archive/page.html, which `make demo` writes
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "look.png"
WIDTH, HEIGHT = 1100, 760


def main(page_file: Path) -> None:
    """Take a picture of the first screen, in few colours: 40 kB instead of 130."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("#panel-results table")
        content = page.screenshot()
        browser.close()
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo-archive" / "page.html")
