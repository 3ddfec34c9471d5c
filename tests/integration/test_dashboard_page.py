"""The dashboard's page in a real browser, with a made-up cluster behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import chromium, console
from tests.dashboard import SLURM_EFFICIENCY, Served, StubData, served, slurm_cluster
from tests.e2e.cluster import eventually

SOURCE = StubData()


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(SOURCE) as running:
        yield running


@pytest.fixture(scope="module")
def opened(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        browser.get(server.access.link)
        yield browser


@pytest.fixture
def page(opened: Chrome) -> Iterator[Chrome]:
    """The page with a cluster that is well; nothing of it may fail."""
    SOURCE.state, SOURCE.silent, SOURCE.parts, SOURCE.problems = "running", "", {}, {}
    SOURCE.forbids = False
    SOURCE.slurm_clusters, SOURCE.efficiencies = [], {}
    opened.execute_script("location.hash = 'nodes'")
    eventually(
        "all is well", lambda: opened.title == "lab: healthy – sykube" and not banners(opened)
    )
    console(opened)
    yield opened
    said = [line["message"] for line in console(opened)]
    # What a test asks for and the server refuses is in the console, too.
    assert [line for line in said if "/scale" not in line] == []


def texts(page: Chrome, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return list(page.execute_script(script, selector))


def banners(page: Chrome) -> str:
    return " ".join(texts(page, ".banner"))


def shown(page: Chrome) -> str:
    script = "return document.querySelector('main > section').getAttribute('aria-label')"
    return str(page.execute_script(script)).lower()


def view(page: Chrome, name: str) -> None:
    page.find_element(By.CSS_SELECTOR, f'nav a[href="#{name}"]').click()


def test_the_link_leads_to_the_page_and_its_token_is_gone(page: Chrome, server: Served) -> None:
    assert page.current_url.startswith(
        f"http://127.0.0.1:{server.access.port}{server.access.place}/"
    )
    assert page.execute_script("return document.cookie") == ""
    assert texts(page, "article.node h2") == ["master", "node1", "node2"]


def test_what_nodes_use_is_drawn_and_goes_on(page: Chrome) -> None:
    def drawn() -> Any:
        script = "return document.querySelector('.line.series-cpu')?.getAttribute('d') ?? ''"
        return page.execute_script(script)

    eventually("a line", lambda: "L" in drawn())
    before = drawn()
    eventually("a longer one", lambda: len(drawn()) > len(before))
    assert "–" not in texts(page, "article.node .plot-value")


def test_a_plot_is_read_with_the_arrow_keys(page: Chrome) -> None:
    plot = page.find_element(By.CSS_SELECTOR, ".plot-picture")
    eventually("enough points", lambda: len(page.execute_script(
        "return document.querySelector('.line.series-cpu').getAttribute('d').split('L')")) > 8)  # fmt: skip
    assert " now: " in (plot.get_attribute("aria-label") or "")
    plot.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert " at " in (plot.get_attribute("aria-label") or "")
    plot.send_keys(Keys.ESCAPE)
    assert " now: " in (plot.get_attribute("aria-label") or "")


def test_every_view_is_reached_by_the_keyboard(page: Chrome) -> None:
    page.execute_script("document.querySelector('.skip').focus()")
    assert page.switch_to.active_element.text == "Skip to content"
    for name in ("nodes", "pods", "deployments", "events", "logs"):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        assert (focused.get_attribute("href") or "").endswith(f"#{name}")
        focused.send_keys(Keys.ENTER)
        eventually("its view", lambda name=name: shown(page) == name)  # type: ignore[misc]


def test_pods_are_filtered_and_keep_their_rows(page: Chrome) -> None:
    view(page, "pods")
    eventually("all pods", lambda: len(texts(page, "tbody tr")) == 7)
    page.execute_script("document.querySelector('tbody tr').dataset.mark = 'kept'")
    search = page.find_element(By.CSS_SELECTOR, 'input[type="search"]')
    search.send_keys("crash")
    eventually("one", lambda: texts(page, "tbody th") == ["report-nightly"])
    assert texts(page, "tbody .pill[data-kind=bad]") == ["CrashLoopBackOff"]
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys(Keys.DELETE)
    eventually("all again", lambda: len(texts(page, "tbody tr")) == 7)
    looks = SOURCE.looks
    eventually("some looks later", lambda: SOURCE.looks > looks + 3)
    assert page.switch_to.active_element == search


def test_a_deployment_is_scaled_and_its_pods_come_and_go(page: Chrome) -> None:
    view(page, "deployments")
    eventually("three", lambda: len(texts(page, "article:first-child .pods li")) == 3)
    page.find_element(By.CSS_SELECTOR, '[aria-label="One pod more of web"]').click()
    eventually("four", lambda: len(texts(page, "article:first-child .pods li")) == 4)
    field = page.find_element(By.CSS_SELECTOR, '[aria-label="Pods of web"]')
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("0", Keys.ENTER)
    eventually("none", lambda: not texts(page, "article:first-child .pods li"))
    assert texts(page, "article:first-child .pill") == ["scaled to 0"]
    less = page.find_element(By.CSS_SELECTOR, '[aria-label="One pod less of web"]')
    assert not less.is_enabled()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("3", Keys.ENTER)
    eventually("three", lambda: len(texts(page, "article:first-child .pods li")) == 3)
    assert SOURCE.asked == [("default", "web", count) for count in (4, 0, 3)]


def test_scaling_that_fails_is_said(page: Chrome) -> None:
    view(page, "deployments")
    eventually("three", lambda: len(texts(page, "article:first-child .pods li")) == 3)

    SOURCE.forbids = True
    page.find_element(By.CSS_SELECTOR, '[aria-label="One pod more of web"]').click()
    said = "web was not scaled: deployments.apps is forbidden"
    eventually("a word", lambda: said in " ".join(texts(page, ".toast")))
    wanted = page.find_element(By.CSS_SELECTOR, '[aria-label="Pods of web"]')
    # The page is drawn anew with the next frame.
    eventually("three again", lambda: wanted.get_attribute("value") == "3")
    page.find_element(By.CSS_SELECTOR, '.toast [aria-label="Close"]').click()
    assert texts(page, ".toast") == []


def test_what_objects_say_is_shown_and_never_run(page: Chrome) -> None:
    evil = "<img src=x onerror=\"document.title='run'\">"
    original = SOURCE._events
    SOURCE._events = lambda: [original()[0] | {"message": evil, "id": "evil"}]  # type: ignore[method-assign]
    view(page, "events")
    eventually("its text", lambda: texts(page, "tbody .message") == [evil])
    del SOURCE._events
    assert page.title != "run"


def tab(page: Chrome, name: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, f'nav a[href="#{name}"]')


def rows(page: Chrome, table: str) -> list[str]:
    return texts(page, f'[aria-label="{table}"] tbody tr')


def test_without_slurm_there_is_no_tab_of_it_and_its_view_is_one_line(page: Chrome) -> None:
    eventually("no tab", lambda: not tab(page, "slurm").is_displayed())
    page.execute_script("location.hash = 'slurm'")
    eventually("its view", lambda: shown(page) == "slurm")
    page_says = "There is no Slurm clustersykube slurm up --name lab creates one."
    eventually("one line", lambda: texts(page, ".empty") == [page_says])
    assert texts(page, "article") == []


def test_a_slurm_cluster_shows_its_queue_its_nodes_and_what_jobs_made_of_their_cpus(
    page: Chrome,
) -> None:
    SOURCE.slurm_clusters = [slurm_cluster(3)]
    SOURCE.efficiencies = {"slurm": SLURM_EFFICIENCY}
    eventually("a tab", lambda: tab(page, "slurm").is_displayed())
    assert tab(page, "slurm").text.split() == ["Slurm", "3"]
    view(page, "slurm")
    eventually("jobs", lambda: len(rows(page, "Jobs of slurm")) == 3)
    assert rows(page, "Jobs of slurm")[:2] == [
        "1bag-1adarunningc1-021:05",
        "2bag-2adapendingResources20:00",
    ]
    assert rows(page, "Slurm nodes of slurm") == [
        "c1-0allocated22960 MiBlab-node1",
        "c2-0idle20960 MiBlab-node1",
        "c3-0drained20960 MiBlab-node1fan",
    ]
    waits = "c4-0 waits for room: 0/2 nodes are available: 2 Insufficient memory."
    assert texts(page, ".waiting li") == [waits]
    assert texts(page, "article.slurm .problem") == ["nodes of Slurm: c3-0: drained"]
    eventually(
        "figures", lambda: texts(page, ".tile dd:not(.more)") == ["71.3 %", "80.0 %", "64.5 %"]
    )
    assert len(page.find_elements(By.CSS_SELECTOR, "circle.job")) == 5
    assert rows(page, "Jobs of slurm with the most impact") == ["74.0 %01:02:0320.5 %"]

    evil = "<img src=x onerror=\"document.title='run'\">"
    SOURCE.slurm_clusters = [slurm_cluster(1)]
    SOURCE.slurm_clusters[0]["jobs"][0]["name"] = evil
    eventually("its text", lambda: texts(page, "article.slurm .message")[0] == evil)
    assert len(rows(page, "Jobs of slurm")) == 1
    assert page.title != "run"

    SOURCE.slurm_clusters = [slurm_cluster(0) | {"accounting": False, "problem": ""}]
    eventually(
        "it is empty", lambda: "No job waits or runs." in texts(page, ".slurm .note:not([hidden])")
    )
    hint = " ".join(texts(page, ".slurm .note:not([hidden])"))
    assert "sykube slurm up --name lab --accounting" in hint
    assert not page.find_element(By.CSS_SELECTOR, "circle.job").is_displayed()

    SOURCE.slurm_clusters = []
    eventually("it is gone", lambda: texts(page, "article") == [])


def test_a_log_follows_and_is_filtered(page: Chrome) -> None:
    page.execute_script("location.hash = 'logs/node/node1/kubelet'")
    eventually("lines", lambda: len(texts(page, ".log div")) == 2)
    log = SOURCE.logs["node1/kubelet"]
    log.write("E1122 10:00:00.000000 something failed")
    eventually(
        "another",
        lambda: texts(page, ".log [data-kind=bad]") == ["E1122 10:00:00.000000 something failed"],
    )
    page.find_element(By.CSS_SELECTOR, 'input[type="search"]').send_keys("failed")
    eventually("one", lambda: len(texts(page, ".log div:not([hidden])")) == 1)
    page.find_element(By.CSS_SELECTOR, 'input[type="search"]').send_keys(
        Keys.CONTROL, "a", Keys.DELETE
    )
    view(page, "nodes")
    eventually("nobody follows", lambda: log.closed)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("stopped", "sykube start --name lab brings it back"),
        ("paused", "sykube unpause --name lab"),
        ("gone", "The cluster is gone from this host"),
    ],
)
def test_a_cluster_that_does_not_run_is_said_to_be_so(page: Chrome, state: str, words: str) -> None:
    SOURCE.state = state
    eventually("the title", lambda: page.title == f"lab: {state} – sykube")
    assert words in " ".join(banners(page).split())
    view(page, "pods")
    eventually("no pods", lambda: f"The cluster is {state}." in " ".join(texts(page, ".empty")))


def test_an_api_that_is_away_leaves_what_was_known_and_says_so(page: Chrome) -> None:
    view(page, "pods")
    eventually("all pods", lambda: len(texts(page, "tbody tr")) == 7)
    SOURCE.silent = "the API server does not answer: connection refused"
    eventually("words", lambda: "connection refused" in banners(page))
    eventually("and since when", lambda: "are as they were at" in banners(page))
    assert "sykube doctor --name lab" in banners(page)
    assert len(texts(page, "tbody tr")) == 7
    assert page.title == "lab: degraded – sykube"


def test_a_node_that_is_ill_is_named_in_every_view(page: Chrome) -> None:
    SOURCE.problems = {"node2": "kubelet is FATAL"}
    view(page, "events")
    eventually("words", lambda: "node2: kubelet is FATAL" in banners(page))
    view(page, "nodes")
    assert texts(page, "article.node .pill") == ["Ready", "Ready", "degraded"]


def test_light_and_dark_are_the_systems(page: Chrome) -> None:
    colours = set()
    for scheme in ("dark", "light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        script = "return getComputedStyle(document.documentElement).backgroundColor"
        colours.add(page.execute_script(script))
    assert len(colours) == 2


def test_a_narrow_window_scrolls_down_alone(page: Chrome) -> None:
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    SOURCE.slurm_clusters = [slurm_cluster(3)]
    SOURCE.efficiencies = {"slurm": SLURM_EFFICIENCY}
    eventually("Slurm, too", lambda: tab(page, "slurm").is_displayed())
    for name in ("nodes", "pods", "deployments", "slurm", "events", "logs"):
        page.execute_script(f"location.hash = '{name}'")
        eventually("its view", lambda: texts(page, "nav a[aria-current]"))
        assert page.execute_script("return document.documentElement.scrollWidth") <= 400
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_loaded_from_elsewhere(page: Chrome) -> None:
    script = "return performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)"
    assert set(page.execute_script(script)) == {page.execute_script("return location.origin")}


def test_a_link_that_was_used_gets_one_clear_page(
    page: Chrome, server: Served, tmp_path: Path
) -> None:
    with chromium(tmp_path) as other:
        other.get(server.access.link)
        assert texts(other, "h1") == ["This link does not open the dashboard"]
        other.get(f"http://127.0.0.1:{server.access.port}{server.access.place}/")
        assert texts(other, "h1") == ["This link does not open the dashboard"]


def test_a_link_in_a_file_opens_it_too(tmp_path: Path) -> None:
    """As the command opens it: the navigation begins elsewhere, and the cookie is a strict one."""
    with served(StubData()) as fresh, chromium(tmp_path) as browser:
        start = tmp_path / "open.html"
        start.write_text(f'<meta http-equiv="refresh" content="0; url={fresh.access.link}">')
        browser.get(start.as_uri())
        eventually("the page", lambda: browser.title == "lab: healthy – sykube")
