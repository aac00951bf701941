"""The page in a browser: it draws, its script runs without an error, tables sort, the time axis zooms."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--window-size=1280,3000",
)  # fmt: skip

DARK = "--blink-settings=preferredColorScheme=0"

WATCH = """<script>
addEventListener("error", (event) => { document.documentElement.dataset.error = event.message; });
</script>"""

USE = """<script>
const headings = [...document.querySelectorAll("#op-table thead th")];
const press = (name) => headings.find((th) => th.textContent.trim() === name).querySelector("button").click();
PRESSES
document.querySelector('[data-zooms] [data-by="2"]').click();
document.querySelector("details:has(#descriptor-table)").open = true;
const search = document.querySelector('[data-filters="descriptor-table"]');
search.value = "gemm gelu_1";
search.dispatchEvent(new Event("input"));
</script>"""


def browse(page: str, folder: Path, *flags: str, press: tuple[str, ...] = ()) -> tuple[str, np.ndarray]:
    """The page's DOM after its headings `press` were pressed, and a picture of it: uint8 [height, width, 3]."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed")
    presses = "\n".join(f'press("{name}");' for name in press)
    text = page.replace("<head>", f"<head>{WATCH}").replace(
        "</body>", USE.replace("PRESSES", presses) + "</body>"
    )
    path, picture = folder / "page.html", folder / "page.png"
    path.write_text(text, encoding="utf-8")
    command = [
        program,
        *CHROMIUM,
        f"--user-data-dir={folder / 'profile'}",
        *flags,
        "--dump-dom",
        f"--screenshot={picture}",
    ]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert picture.exists(), done.stderr
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    with Image.open(picture) as image:
        return done.stdout, np.asarray(image.convert("RGB"))


class Table(HTMLParser):
    """The table with an id: its headings with their order, and the visible rows of its body as texts."""

    def __init__(self, dom: str, name: str) -> None:
        super().__init__()
        self.name, self.inside, self.body, self.hidden = name, False, False, False
        self.orders: list[str | None] = []
        self.rows: list[list[str]] = []
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "table":
            self.inside = values.get("id") == self.name
        if not self.inside:
            return
        if tag == "tbody":
            self.body = True
        if tag == "tr" and self.body:
            self.hidden = "hidden" in values
            if not self.hidden:
                self.rows.append([])
        if tag == "th" and not self.body:
            self.orders.append(values.get("aria-sort"))
        if tag in ("td", "th") and self.body and not self.hidden:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.inside = False
        if tag == "tbody":
            self.body = False

    def handle_data(self, data: str) -> None:
        if self.inside and self.body and not self.hidden and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def column(self, place: int) -> list[float]:
        return [float(re.sub(r"[^\d.]", "", row[place])) for row in self.rows]


@pytest.mark.slow
def test_the_script_runs(page: str, tmp_path: Path) -> None:
    dom, picture = browse(page, tmp_path, press=("cycles",))
    assert "data-error" not in dom
    assert re.search(r'<html lang="en" class="js">', dom)
    table = Table(dom, "op-table")
    assert table.orders[3] == "descending"
    assert table.column(3) == sorted(table.column(3), reverse=True)
    assert table.column(0) != sorted(table.column(0)), "it was sorted"
    assert 'id="time-wide" style="width: 200%;"' in dom
    shown = Table(dom, "descriptor-table").rows
    assert shown
    assert all("GEMM" in row[1] and "gelu_1" in row[-1] for row in shown)
    assert_drawn(picture, light=True)


@pytest.mark.slow
def test_a_heading_pressed_twice_turns_the_order(page: str, tmp_path: Path) -> None:
    dom, picture = browse(page, tmp_path, DARK, press=("op", "cycles", "cycles"))
    table = Table(dom, "op-table")
    assert [order for order in table.orders if order] == ["ascending"]
    assert table.column(3) == sorted(table.column(3))
    assert_drawn(picture, light=False)


@pytest.mark.slow
def test_an_error_of_the_script_would_be_seen(page: str, tmp_path: Path) -> None:
    broken = page.replace('"use strict";', '"use strict"; no_such_function();')
    with pytest.raises(AssertionError, match="no_such_function"):
        browse(broken, tmp_path)


@pytest.mark.slow
def test_a_mixture_draws_too(mixture_page: str, tmp_path: Path) -> None:
    dom, picture = browse(mixture_page, tmp_path, press=("MAC",))
    assert "data-error" not in dom
    assert_drawn(picture, light=True)


def assert_drawn(picture: np.ndarray, *, light: bool) -> None:
    """Neither blank nor in the other colours; the chips and bars of GEMM are there in their blue."""
    ground = np.median(picture.reshape(-1, 3), axis=0)
    assert (ground > 240).all() if light else (ground < 40).all()
    other = (np.abs(picture.astype(int) - ground) > 40).any(axis=-1)
    assert 0.01 < other.mean() < 0.6
    gemm = np.array((0x2F, 0x6F, 0xB3) if light else (0x5B, 0x9B, 0xE0))
    assert (np.abs(picture.astype(int) - gemm).max(axis=-1) < 12).sum() > 500


@pytest.fixture(scope="session")
def mixture_page(mixture_facts: object) -> str:
    from intaglio.report import Facts, render

    assert isinstance(mixture_facts, Facts)
    return render(mixture_facts)
