"""The dashboard of a real cluster in a real browser."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.browser import chromium, console
from tests.e2e import manifests
from tests.e2e.cluster import TestCluster, eventually
from tests.e2e.page import Dashboard, go, shot, texts

# The console of a headless browser that is offline otherwise.
SERIOUS = ("SEVERE", "WARNING")


@pytest.fixture(scope="module")
def shop(observed: TestCluster) -> Iterator[TestCluster]:
    """Two Deployments, and a pod that does not get to run."""
    image = observed.image
    bad = manifests.pod("report-nightly", image, "e2e-dash-node1", ["python3", "-c", "exit(1)"])
    observed.apply(
        manifests.deployment("web", image, 2), manifests.deployment("cart", image, 1), bad
    )
    for name in ("web", "cart"):
        observed.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
    yield observed
    observed.kubectl("delete", "deployment/web", "deployment/cart", "pod/report-nightly")


@pytest.fixture(scope="module")
def dashboard(shop: TestCluster) -> Iterator[Dashboard]:
    running = Dashboard(shop)
    yield running
    running.end()


@pytest.fixture(scope="module")
def page(dashboard: Dashboard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        browser.get(dashboard.link)
        eventually("the page is there", lambda: browser.title.startswith("e2e-dash: healthy"))
        yield browser


def deployment(page: Chrome, name: str) -> WebElement:
    cards = page.find_elements(By.CSS_SELECTOR, "article.deployment")
    return next(card for card in cards if card.find_element(By.TAG_NAME, "h2").text == name)


def names(cluster: TestCluster, app: str) -> set[str]:
    found = cluster.get("pods", "-l", f"app={app}")["items"]
    return {item["metadata"]["name"] for item in found}


def test_nodes_show_their_programs_and_what_they_use(page: Chrome) -> None:
    go(page, "nodes")
    shown = {
        "article.node h2": ["master", "node1"],
        "article.node .pill": ["Ready", "Ready"],
        "article.node:first-child .services li": ["containerdrunning", "kubeletrunning"],
    }
    eventually("nodes", lambda: {each: texts(page, each) for each in shown} == shown)
    # Twelve points and more: something to see for each of three plots.
    eventually(
        "lines are drawn",
        lambda: (
            len(texts(page, "article.node .line")) >= 2 * 3
            and texts(page, '.line.series-cpu[d*="L"]')
        ),
    )
    eventually(
        "each plot has a value",
        lambda: (
            len(values := texts(page, "article.node .plot-value")) == 6
            and not any(value.startswith("–") for value in values)
        ),
    )


def test_pods_have_kubectls_words_and_what_they_use(page: Chrome, shop: TestCluster) -> None:
    go(page, "pods")
    eventually(
        "all pods are listed",
        lambda: len(texts(page, "tbody tr")) == len(shop.get("pods", "-A")["items"]),
    )
    eventually(
        "the pod that fails is named",
        lambda: any("report-nightly" in row and ("Error" in row or "BackOff" in row or "Completed" in row)
                    for row in texts(page, "tbody tr")),
    )  # fmt: skip
    eventually(
        "pods are measured",
        lambda: any("m" in cell for cell in texts(page, "tbody tr td:nth-child(7)")),
    )
    page.find_element(By.CSS_SELECTOR, 'input[type="search"]').send_keys("web-")
    eventually("two fit", lambda: len(texts(page, "tbody tr")) == 2)
    page.find_element(By.CSS_SELECTOR, 'input[type="search"]').clear()
    page.find_element(By.CSS_SELECTOR, 'input[type="search"]').send_keys(" ", Keys.BACKSPACE)


def test_a_deployment_is_scaled_from_the_page_by_the_keyboard(
    page: Chrome, shop: TestCluster
) -> None:
    go(page, "deployments")
    eventually("it is there", lambda: "web" in texts(page, "article.deployment h2"))
    more = deployment(page, "web").find_element(
        By.CSS_SELECTOR, '[aria-label="One pod more of web"]'
    )
    more.send_keys(Keys.ENTER)
    more.send_keys(Keys.ENTER)
    eventually("it was scaled", lambda: shop.get("deployment", "web")["spec"]["replicas"] == 4)
    eventually(
        "its pods appear without reloading",
        lambda: (
            len(deployment(page, "web").find_elements(By.CSS_SELECTOR, '.pods li[data-kind="ok"]'))
            == 4
        ),
    )
    assert page.switch_to.active_element == more
    shot(page, "deployments")
    field = deployment(page, "web").find_element(By.TAG_NAME, "input")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("1", Keys.ENTER)
    eventually("and go", lambda: len(names(shop, "web")) == 1)
    eventually(
        "from the page, too",
        lambda: len(deployment(page, "web").find_elements(By.CSS_SELECTOR, ".pods li")) == 1,
    )


def test_events_are_there(page: Chrome) -> None:
    go(page, "events")
    eventually(
        "scaling was noted", lambda: any("Scaled up" in row for row in texts(page, "tbody tr"))
    )
    page.find_element(By.CSS_SELECTOR, 'input[type="checkbox"]').click()
    eventually("warnings alone", lambda: {*texts(page, "tbody .pill")} <= {"Warning"})
    page.find_element(By.CSS_SELECTOR, 'input[type="checkbox"]').click()
    shot(page, "events")


def test_a_pods_log_follows(page: Chrome, shop: TestCluster) -> None:
    (name,) = names(shop, "cart")
    go(page, "pods")
    page.find_element(By.CSS_SELECTOR, f'[aria-label="Logs of {name}"]').click()
    # Its readiness probe is a request each second.
    eventually("lines come", lambda: len(texts(page, ".log div")) > 2)
    before = len(texts(page, ".log div"))
    eventually("and go on", lambda: len(texts(page, ".log div")) > before)


def test_a_nodes_log_is_there(page: Chrome) -> None:
    page.execute_script("location.hash = 'logs/node/master/kubelet'")
    eventually("lines come", lambda: len(texts(page, ".log div")) > 10)
    shot(page, "logs")


def test_without_a_slurm_cluster_there_is_no_tab_of_any(page: Chrome) -> None:
    tab = page.find_element(By.CSS_SELECTOR, 'nav a[href="#slurm"]')
    eventually("it is hidden", lambda: not tab.is_displayed())
    page.execute_script("location.hash = 'slurm'")
    eventually("it is said", lambda: "There is no Slurm cluster" in texts(page, ".empty h2"))


def test_the_link_works_once(dashboard: Dashboard, page: Chrome) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(dashboard.link, timeout=10)


def test_nothing_came_from_elsewhere_and_nothing_failed(page: Chrome) -> None:
    script = "return performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)"
    assert set(page.execute_script(script)) == {page.execute_script("return location.origin")}
    assert [line for line in console(page) if line["level"] in SERIOUS] == []


@pytest.mark.long
def test_a_stopped_cluster_is_said_to_be_stopped(page: Chrome, shop: TestCluster) -> None:
    go(page, "pods")
    shot(page, "pods")
    go(page, "nodes")
    shot(page, "nodes")
    shop.sykube("stop", "--name", shop.name)
    try:
        eventually("the page says so", lambda: "stopped" in page.title)
        banner = " ".join(texts(page, ".banner"))
        assert f"sykube start --name {shop.name}" in banner
        eventually(
            "nodes, too", lambda: texts(page, "article.node .pill") == ["stopped", "stopped"]
        )
        shot(page, "stopped")
    finally:
        shop.sykube("start", "--name", shop.name, timeout=600)
    eventually("and that it is back", lambda: "healthy" in page.title)


def test_it_ends_in_order(dashboard: Dashboard, page: Chrome) -> None:
    assert dashboard.end() == 0
    eventually(
        "the page says so",
        lambda: "No answer from sykube dashboard" in " ".join(texts(page, ".banner")),
    )
