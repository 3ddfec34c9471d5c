"""What is read of hpccoutf.txt."""

from __future__ import annotations

import pytest

from sykube.bench import hpcc_output
from sykube.errors import SykubeError

# As HPC Challenge 1.5.0 wrote it, of two processes and a matrix of order 200.
SUMMARY = {
    "VersionMajor": "1",
    "LANG": "C",
    "Success": "1",
    "CommWorldProcs": "2",
    "HPL_Tflops": "0.00313199",
    "HPL_ctop": "1",
    "StarDGEMM_Gflops": "7.07485",
    "PTRANS_GBs": "0.253107",
    "PTRANS_residual": "0",
    "MPIRandomAccess_LCG_GUPs": "0.000448158",
    "MPIRandomAccess_ErrorsFraction": "0",
    "MPIRandomAccess_GUPs": "0.000391919",
    "StarSTREAM_Copy": "80.6168",
    "StarSTREAM_Triad": "42.3686",
    "SingleSTREAM_Triad": "41.5",
    "MPIFFT_Gflops": "1.30799",
    "RandomlyOrderedRingLatency_usec": "1.70906",
    "RandomlyOrderedRingBandwidth_GBytes": "3.20365",
    "NaturallyOrderedRingLatency_usec": "1.6992",
    "M_OPENMP": "-1",
}
FIGURES = {
    "hpl": 3.13199,
    "stream": 42.3686,
    "ptrans": 0.253107,
    "random_access": 0.000391919,
    "fft": 1.30799,
    "ring_latency": 1.70906,
    "ring_bandwidth": 3.20365,
    "seconds": 1.25,
}
RING = {
    "RandomlyOrderedRingLatency_usec": "-1",
    "RandomlyOrderedRingBandwidth_GBytes": "-1",
}
CHECKED = """
Finished      5 tests with the following results:
              5 tests completed and passed residual checks,
              0 tests completed and failed residual checks,
              0 tests skipped because of illegal input values.
"""
# Of one of the tests by linear congruences, of which there is no figure.
LOST = "Found 26 errors in 1024 locations (failed)."


def output(changes: dict[str, str | None] | None = None, checked: str = CHECKED) -> str:
    """Of a run, with some values of its summary changed, or left out."""
    summary = SUMMARY | (changes or {})
    lines = [f"{name}={value}" for name, value in summary.items() if value is not None]
    return "\n".join(
        [
            "a word of mpirun's", "HPL_Tflops=5", checked, "Begin of Summary section.", *lines,
            "End of Summary section.", "#####", "End of HPC Challenge tests.",
            "sykube_seconds=1.250", "",
        ]
    )  # fmt: skip


def test_each_figure_is_in_its_own_unit() -> None:
    assert hpcc_output.parse(output(), 2) == pytest.approx(FIGURES)


def test_one_process_has_no_ring() -> None:
    found = hpcc_output.parse(output({**RING}), 1)
    assert found == pytest.approx({k: v for k, v in FIGURES.items() if "ring" not in k})
    with pytest.raises(SykubeError) as caught:
        hpcc_output.parse(output({**RING}), 2)
    assert "RandomlyOrderedRingLatency_usec is '-1'" in caught.value.details


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no whole summary"),
        ("HPL ERROR from process # 0", "no whole summary"),
        (output().partition("MPIFFT")[0], "no whole summary"),
        (output().partition("sykube_seconds")[0], "sykube_seconds is 'missing'"),
        (output({"Success": "0"}), "Success=0"),
        (output({"Success": "0"}, LOST), "Success=0; Found 26 errors in 1024 locations (failed)."),
        (output({"Success": None}), "Success="),
        (output({"HPL_Tflops": "nan"}), "HPL_Tflops is 'nan'"),
        (output({"HPL_Tflops": "-nan"}), "HPL_Tflops is '-nan'"),
        (output({"HPL_Tflops": "inf"}), "HPL_Tflops is 'inf'"),
        (output({"HPL_Tflops": "-1"}), "HPL_Tflops is '-1'"),
        (output({"PTRANS_GBs": "0"}), "PTRANS_GBs is '0'"),
        (output({"PTRANS_GBs": "quick"}), "PTRANS_GBs is 'quick'"),
        (output({"StarSTREAM_Triad": None}), "StarSTREAM_Triad is 'missing'"),
        (output({"MPIRandomAccess_ErrorsFraction": "0.02"}), "lost more than 1 %"),
        (output({"MPIRandomAccess_ErrorsFraction": "nan"}), "lost more than 1 %"),
        (output({"MPIRandomAccess_ErrorsFraction": None}), "lost more than 1 %"),
        (output(checked=CHECKED.replace("0 tests completed", "1 tests completed")), "its check"),
        (output(checked=CHECKED.replace("0 tests skipped", "2 tests skipped")), "skipped"),
    ],
)
def test_a_run_that_failed_is_one_error(text: str, why: str) -> None:
    with pytest.raises(SykubeError, match="a run of HPC Challenge failed") as caught:
        hpcc_output.parse(text, 2)
    assert why in caught.value.details


def test_what_it_last_said_is_shown() -> None:
    with pytest.raises(SykubeError) as caught:
        hpcc_output.parse("a\nHPL ERROR from process # 0\n>>> Illegal value of N <<<\n", 2)
    assert caught.value.details.endswith(">>> Illegal value of N <<<")
