#!/usr/bin/env python3
"""Opens a report page in headless Chromium and uses it as a person would: filter, keyboard, print.

    cargo run -p delegraph-report --example made_up -- FOLDER 5000
    python3 conformance/report/check_page.py FOLDER [--screenshots DIR]

Needs Chromium (DELEGRAPH_CHROMIUM, or on the path) and nothing else: it talks the DevTools protocol over two pipes. Without Chromium it says
so and ends with 77. Any line that begins with `wrong:` makes it end with 1. FOLDER may also be a folder of many reports with an index.html.
"""

import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
LIMIT = 1_000_000
WAIT = 120


def browser():
    given = os.environ.get("DELEGRAPH_CHROMIUM")
    return given or next(filter(None, map(shutil.which, BROWSERS)), None)


class Chromium:
    """A browser and one page in it."""

    def __init__(self, program, profile):
        to_browser, self.writer = os.pipe()
        self.reader, from_browser = os.pipe()

        def pipes():
            # The browser reads commands from 3 and writes answers to 4; neither may be overwritten before it is moved.
            a, b = os.dup(to_browser), os.dup(from_browser)
            os.dup2(a, 3)
            os.dup2(b, 4)

        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
                     "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen([program, *arguments], preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.call(f"{domain}.enable")

    def message(self, until):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self.reader, 1 << 16) if ready else b""
            if not piece:
                raise TimeoutError("the browser does not answer")
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.writer, json.dumps(request).encode() + b"\0")
        until = time.monotonic() + WAIT
        while True:
            answer = self.message(until)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, address):
        # By way of an empty page: an address that differs in its fragment alone would not be loaded again.
        for each in ["about:blank", address]:
            self.events.clear()
            self.call("Page.navigate", url=each)
            until = time.monotonic() + WAIT
            while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
                self.events.append(self.message(until))

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def key(self, key, text=None, modifiers=0):
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "End": 35, " ": 32}
        event = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper())), "modifiers": modifiers}
        text = text if text is not None else {"Enter": "\r", "Tab": "", " ": " "}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def look(self, width, height, dark=False, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, path, whole=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(data["data"]))

    def end(self):
        self.process.terminate()
        self.process.wait(WAIT)


class Check:
    def __init__(self):
        self.wrong = 0

    def that(self, holds, what):
        print(("ok:    " if holds else "wrong: ") + what)
        self.wrong += not holds


SHOWN = "document.querySelector('[role=status]').textContent"
# Contrast of a text with what is painted behind it, by WCAG 2: the least over the visible elements that hold text themselves.
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const light = (c) => { const f = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const over = (top, under) => [0, 1, 2].map((k) => top[k] * top[3] + under[k] * (1 - top[3])).concat(1);
  let worst = [99, ''];
  for (const element of document.querySelectorAll('body *')) {
    const own = Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || /^(SCRIPT|NOSCRIPT|STYLE|OPTION)$/.test(element.tagName) || element.closest('.off,.jump')) continue;
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(at);
    let behind = [255, 255, 255, 1], fade = 1;
    for (const at of chain) { const style = getComputedStyle(at); behind = over(rgba(style.backgroundColor), behind); fade *= +style.opacity; }
    const ink = rgba(getComputedStyle(element).color); ink[3] *= fade;
    const [a, b] = [light(over(ink, behind)), light(behind)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.tagName + '.' + element.className + ': ' + element.textContent.slice(0, 40)];
  }
  return worst;
})()"""


def quiet(page, check, what):
    """No request left the file and nothing was complained of."""
    page.run("1")
    requests = [event["params"]["request"]["url"] for event in page.events if event.get("method") == "Network.requestWillBeSent"]
    outside = [url for url in requests if not url.startswith(("file:", "data:", "about:"))]
    check.that(not outside and len(requests) <= 1, f"{what}: no request but for the page itself {outside or ''}")
    loud = [event for event in page.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")]
    check.that(not loud, f"{what}: the console is silent {loud[:1] or ''}")


def tabs(page, condition, most=400):
    """Presses Tab until the condition holds of the focused element."""
    for _ in range(most):
        page.key("Tab")
        if page.run(f"(() => {{ const e = document.activeElement; return {condition}; }})()"):
            return True
    return False


def check_report(page, check, folder):
    file = folder / "report.html"
    address = file.resolve().as_uri()
    size = file.stat().st_size
    check.that(size < LIMIT, f"the page has {size} bytes, fewer than {LIMIT}")
    page.look(1280, 900)
    page.open(address)
    quiet(page, check, "opened from a file")
    records = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]
    total, ids = len(records), {record["id"] for record in records}
    check.that(page.run(SHOWN) == f"{total} of {total} cases", f"all {total} cases are counted: {page.run(SHOWN)!r}")
    drawn = "document.querySelectorAll('#list tbody tr').length"
    check.that(page.run(drawn) <= 100, f"rows are drawn lazily: {page.run(drawn)}")
    got = page.run("Array.from(document.querySelectorAll('#list .i code'), (e) => e.textContent)")
    check.that(set(got) <= ids, "ids in the table are those of the log")
    check.that(page.run("document.querySelectorAll('script').length") == 2 and page.run("!document.querySelector('main b script, main p script')"), "no text of a case became an element")
    check.that(page.run("Array.from(document.querySelectorAll('th:not([scope])')).length") == 0, "every header cell has a scope")
    for dark in [False, True]:
        page.look(1280, 900, dark)
        ratio, where = page.run(CONTRAST)
        check.that(ratio >= 4.5, f"least contrast {'dark' if dark else 'light'}: {ratio:.2f} ({where})")
    page.look(1280, 900)

    # Filter by verdict, by word, by address.
    failing = [record for record in records if record["verdict"] in ("fail", "crash", "hang", "fail-claimed")]
    page.open(address + "#v=fail,fail-claimed,crash,hang")
    check.that(page.run(SHOWN).startswith(f"{len(failing)} of"), f"an address that filters is obeyed: {page.run(SHOWN)!r}")
    page.open(address)
    page.key("/")
    check.that(page.run("document.activeElement.id") == "q", "/ goes to the filter")
    for letter in "softmax":
        page.key(letter)
    want = sum(all(word in " ".join([r["id"], r.get("op", ""), r.get("dtype", ""), r.get("reason", "")]).lower() for word in ["softmax"]) for r in records)
    check.that(page.run(SHOWN) == f"{want} of {total} cases", f"words filter: {page.run(SHOWN)!r}, {want} by the log")
    check.that("q=softmax" in page.run("location.hash"), "the filter stands in the address")
    page.key("Escape")
    check.that(page.run(SHOWN) == f"{total} of {total} cases", "Escape empties the filter")
    page.run("document.querySelector('.chips button').focus()")
    page.key(" ")
    check.that(page.run("document.querySelector('.chips button').getAttribute('aria-pressed')") == "true" and "v=" in page.run("location.hash"), "a verdict is chosen by the space bar")

    # Sorted by number, largest first.
    page.open(address)
    page.run("Array.from(document.querySelectorAll('#list th button')).find((b) => b.textContent === 'max_abs').focus()")
    page.key("Enter")
    largest = max(records, key=lambda record: float("inf") if record["max_abs"] is None else record["max_abs"])
    first = page.run("document.querySelector('#list .i code').textContent")
    same = next(r for r in records if r["id"] == first)
    check.that(same["max_abs"] == largest["max_abs"] and page.run("document.querySelector('th[aria-sort=descending]').textContent") == "max_abs", "a click on a column sorts by it")

    # The grid by keyboard.
    if page.run("!!document.getElementById('matrix')"):
        page.open(address)
        check.that(tabs(page, "e.closest('#matrix') !== null"), "Tab reaches the grid")
        page.key("ArrowRight")
        page.key("ArrowDown")
        page.key("ArrowLeft")
        label = page.run("document.activeElement.getAttribute('aria-label')")
        at = page.run("[document.activeElement.parentElement.rowIndex, document.activeElement.cellIndex]")
        check.that(at == [2, 1], f"arrow keys move in the grid: {label!r}")
        outline = page.run("getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth")
        check.that(outline == "solid3px", f"the focus is seen: {outline}")
        page.key("Enter")
        op, rest = label.split(", ", 1)
        dtype = rest.split(":")[0]
        want = sum(r.get("op") == op and r.get("dtype") == dtype and r["category"] != "performance" for r in records)
        check.that(page.run(SHOWN).startswith(f"{want} of {total} cases"), f"Enter shows the cases of the cell: {page.run(SHOWN)!r}")
        page.key("Tab")
        check.that(not page.run("!!document.activeElement.closest('#matrix')"), "the grid is one stop of the Tab key")

    # A case unfolds, its command is copied.
    if failing:
        page.open(address + "#v=fail,crash,hang,fail-claimed")
        page.run("document.querySelector('#list td.v button').focus()")
        page.key("Enter")
        check.that(page.run("!!document.querySelector('#list tr.more .repro')"), "Enter unfolds a case with its command")
        page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        page.run("document.querySelector('#list tr.more .repro button').click()")
        case = page.run("document.querySelector('#list .i code').textContent")
        repro = next(r["repro"] for r in records if r["id"] == case)
        check.that(page.run("window.copied") == repro, "the command is copied as the log has it")
    page.open(address + "#v=skip")
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.run("Array.from(document.querySelectorAll('button')).find((b) => b.textContent === 'Copy as TSV').click()")
    lines = page.run("window.copied").rstrip("\n").split("\n")
    check.that(len(lines) == 1 + sum(r["verdict"] == "skip" for r in records) and len({line.count("\t") for line in lines}) == 1, "the table is copied as TSV")

    # Small and without script.
    page.look(390, 844, phone=True)
    page.open(address)
    check.that(page.run("document.documentElement.scrollWidth") <= 390, f"nothing sticks out at 390 pixels: {page.run('document.documentElement.scrollWidth')}")
    page.look(1280, 900)
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.open(address)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    seen = page.run("document.body.innerText")
    check.that("may I ship on this?" in seen and "This table is made by script" in seen and (not failing or failing[0]["id"] in seen or "more failure" in seen), "without script, verdict and failures are there")

    # Print.
    page.open(address)
    pdf = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])
    check.that(pdf[:5] == b"%PDF-" and len(pdf) > 10_000, f"it prints to a PDF of {len(pdf)} bytes")
    return pdf


def check_index(page, check, folder):
    page.look(1280, 900)
    page.open((folder / "index.html").resolve().as_uri())
    quiet(page, check, "the index")
    for dark in [False, True]:
        page.look(1280, 900, dark)
        ratio, where = page.run(CONTRAST)
        check.that(ratio >= 4.5, f"least contrast of the index {'dark' if dark else 'light'}: {ratio:.2f} ({where})")
    links = page.run("Array.from(document.querySelectorAll('a[href$=\"report.html\"]'), (a) => decodeURIComponent(new URL(a.href).pathname))")
    check.that(links and all(Path(link).is_file() for link in links), f"{len(links)} links to reports lead somewhere")
    page.look(390, 844, phone=True)
    check.that(page.run("document.documentElement.scrollWidth") <= 390, "nothing of the index sticks out at 390 pixels")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--screenshots", type=Path, help="a folder for pictures of what a person sees")
    arguments = parser.parse_args()
    program = browser()
    if not program:
        print("skipped: Chromium is not here: install it, or set DELEGRAPH_CHROMIUM")
        return 77
    check = Check()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        page = Chromium(program, profile)
        try:
            names = [name for name in ("report.html", "index.html") if (arguments.folder / name).is_file()]
            check.that(bool(names), "there is a page")
            pdf = check_report(page, check, arguments.folder) if "report.html" in names else None
            if "index.html" in names:
                check_index(page, check, arguments.folder)
            if arguments.screenshots:
                arguments.screenshots.mkdir(parents=True, exist_ok=True)
                if pdf:
                    (arguments.screenshots / "print.pdf").write_bytes(pdf)
                for name in names:
                    for view, width, height, dark, phone in [("light", 1280, 1900, False, False), ("dark", 1280, 1900, True, False), ("phone", 390, 1900, False, True)]:
                        page.look(width, height, dark, phone)
                        page.open((arguments.folder / name).resolve().as_uri())
                        stem = name.split(".")[0]
                        page.screenshot(arguments.screenshots / f"{stem}-{view}.png")
                        for section in ["failures", "cases"]:
                            if page.run(f"!!document.getElementById('{section}')"):
                                page.run(f"document.documentElement.style.scrollBehavior = 'auto'; document.getElementById('{section}').scrollIntoView(); document.querySelector('#list td.v button')?.click()")
                                page.screenshot(arguments.screenshots / f"{stem}-{view}-{section}.png")
        finally:
            page.end()
    print(f"{check.wrong} wrong")
    return 1 if check.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
