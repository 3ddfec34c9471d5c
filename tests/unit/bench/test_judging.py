"""What `sykube bench` makes of figures, against tables and scipy's own tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sykube.bench import judging
from sykube.bench.judging import Verdict

BASE = [10.0, 11.0, 9.5, 10.2, 10.1, 9.9, 10.4, 9.7, 10.3, 10.0]
NOISE = [1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.01, 1.0]
MARGINS = [0.001, 0.003, 0.006, 0.01, 0.02, 0.05]


def beside(factor: float) -> list[float]:
    return [each * noise * factor for each, noise in zip(BASE, NOISE, strict=True)]


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("factor", [1.0, 1.004, 1.3])
def test_in_blocks_it_judges_as_scipys_paired_tests_do(margin: float, factor: float) -> None:
    logs = np.log(np.array(beside(factor)) / np.array(BASE))
    edge = math.log1p(margin)
    equal = max(
        stats.ttest_1samp(logs, -edge, alternative="greater").pvalue,
        stats.ttest_1samp(logs, edge, alternative="less").pvalue,
    )
    (found,) = judging.in_blocks([BASE], [beside(factor)], margin)
    assert found.verdict == wanted(equal, stats.ttest_1samp(logs, 0).pvalue)
    assert found.low <= found.ratio <= found.high


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_apart_it_judges_as_welchs_test_does(margin: float, factor: float) -> None:
    before, after = np.log(np.array(BASE)), np.log(np.array(beside(factor)[:7]))
    edge = math.log1p(margin)
    equal = max(
        stats.ttest_ind(after + edge, before, equal_var=False, alternative="greater").pvalue,
        stats.ttest_ind(after - edge, before, equal_var=False, alternative="less").pvalue,
    )
    (found,) = judging.apart([BASE], [beside(factor)[:7]], margin)
    different = stats.ttest_ind(after, before, equal_var=False).pvalue
    assert found.verdict == wanted(equal, different)


def wanted(equal: float, different: float) -> Verdict:
    if equal < 0.05:
        return Verdict.EQUAL
    return Verdict.DIFFERENT if different < 0.05 else Verdict.UNDECIDED


def test_the_three_verdicts_are_all_among_these() -> None:
    verdicts = {
        judging.in_blocks([BASE], [beside(factor)], margin)[0].verdict
        for factor in (1.0, 1.3)
        for margin in MARGINS
    }
    assert verdicts == {*Verdict}


def test_a_familys_level_is_that_of_all_its_comparisons() -> None:
    alone = judging.in_blocks([BASE], [beside(1.005)], 0.014)
    assert alone[0].verdict == Verdict.EQUAL
    many = [beside(1.005), *[beside(1.2)] * 20]
    assert judging.in_blocks([BASE] * 21, many, 0.014)[0].verdict != Verdict.EQUAL


def test_the_interval_of_a_median_of_ratios_is_the_bootstraps() -> None:
    """Of three ratios, every resample's median is one of them; each is it with known chance."""
    (found,) = judging.in_blocks([[1.0, 1.0, 1.0]], [[1.0, 2.0, 4.0]], 0.02)
    # 7 of 27 resamples have the smallest as their median, and 7 the largest.
    assert (found.low, found.ratio, found.high) == (1.0, 2.0, 4.0)


def test_values_that_never_vary_are_equal_or_are_not() -> None:
    assert judging.in_blocks([[2.0, 2.0]], [[2.0, 2.0]], 0.02)[0].verdict == Verdict.EQUAL
    assert judging.in_blocks([[2.0, 2.0]], [[3.0, 3.0]], 0.02)[0].verdict == Verdict.DIFFERENT
    assert judging.apart([[2.0, 2.0]], [[3.0, 3.0]], 0.02)[0].verdict == Verdict.DIFFERENT


def test_one_run_says_nothing() -> None:
    assert judging.in_blocks([[2.0]], [[2.0]], 0.02)[0].verdict == Verdict.UNDECIDED
    assert judging.apart([[2.0]], [[2.0, 2.1]], 0.02)[0].verdict == Verdict.UNDECIDED


def test_p_values_are_adjusted_as_rs_p_adjust_does() -> None:
    """R 4: p.adjust(c(.01, .04, .03, .005), "holm")."""
    assert judging.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert judging.holm([0.5, 0.5]) == [1.0, 1.0]
    assert judging.holm([]) == []


def test_as_many_runs_are_needed_as_students_table_says() -> None:
    """For a spread as large as the margin: (1.812 + 1.372)² = 10.1 ≤ 11, (1.833 + 1.383)² > 10."""
    margin = 0.02
    spread = math.log1p(margin)
    others = [math.exp(spread), 1.0, math.exp(-spread)]
    assert judging.runs_needed([1.0, 1.0, 1.0], others, margin) == 11
    assert judging.runs_needed([1.0, 1.0], [1.0, 1.0], margin) == 2


def test_a_median_has_the_interval_that_scipy_finds() -> None:
    values = [1.0, 1.1, 0.9, 1.4, 1.05, 0.97, 1.2, 1.01]
    median, low, high = judging.estimate(values)
    found = stats.bootstrap(
        (values,), np.median, n_resamples=10_000, method="percentile"
    ).confidence_interval
    assert median == pytest.approx(1.03)
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.05)
    assert judging.estimate([2.0]) == (2.0, 2.0, 2.0)
