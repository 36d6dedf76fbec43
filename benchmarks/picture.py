"""Draw the picture of the README: the first screen of a report, as a browser shows it.

usage: python benchmarks/picture.py REPORT.html [docs/report.png]

REPORT.html is what `tsstore demo` and `tsstore report demo.zarr --by label` write.
"""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

from selenium import webdriver

WIDTH, HEIGHT = 960, 800


def main() -> None:
    """Open the page with its first layer unfolded, and keep what is seen."""
    page, target = Path(sys.argv[1]), Path([*sys.argv, "docs/report.png"][2])
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.resolve().as_uri())
        browser.execute_script("document.querySelector('.layers > details').open = true")
        shown = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        target.write_bytes(base64.b64decode(shown["data"]))
    finally:
        browser.quit()
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
