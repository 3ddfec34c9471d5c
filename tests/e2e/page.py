"""`sykube dashboard` of a real cluster, and its page in a real browser.

SYKUBE_SCREENSHOTS=FOLDER keeps pictures of what the tests see, for docs/screenshots.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.e2e.cluster import TestCluster


class Dashboard:
    """The command while it runs; its link is the first line that it prints."""

    def __init__(self, cluster: TestCluster) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sykube", "dashboard", "--no-open", "--name", cluster.name],
            env=cluster.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        timer = threading.Timer(60, self.process.kill)
        timer.start()
        self.link = self.process.stdout.readline().strip()
        timer.cancel()
        assert self.link, self.process.wait(10)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


def shot(page: Chrome, name: str) -> None:
    """Keep a picture in light and one in dark."""
    if not (folder := os.environ.get("SYKUBE_SCREENSHOTS")):
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for scheme in ("dark", "light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        page.save_screenshot(f"{folder}/{name}-{scheme}.png")


def go(page: Chrome, view: str) -> None:
    page.find_element(By.CSS_SELECTOR, f'nav a[href="#{view}"]').click()


def texts(page: Chrome, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return list(page.execute_script(script, selector))
