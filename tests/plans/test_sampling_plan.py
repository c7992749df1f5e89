"""The plan itself: its samplers' shares, budgets in tokens, boosts, previews, differences, reasons, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import ConfigError, FormatError, InputError, PastTheEnd, PlanInfeasible, UnknownName
from dataforge.plans import SamplingPlan, summary_lines
from dataforge.plans.samplers.temperature import power

PAPER = [5000, 1000, 300, 80, 20, 5]


def build(sizes: list[int], **options: object) -> SamplingPlan:
    return SamplingPlan.build(sizes, **{"seed": 0, **options})  # type: ignore[arg-type]


# Samplers


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=10).filter(any), st.integers(1, 4), st.data())
def test_unimax_is_the_allocation_of_clusterclip_spread_over_the_whole_run(
    sizes: list[int], max_repeats: int, data: st.DataObject
) -> None:
    num_draws = data.draw(st.integers(1, max_repeats * sum(sizes)))
    clip = build(sizes, num_draws=num_draws, max_repeats=max_repeats)
    stationary = build(sizes, num_draws=num_draws, max_repeats=max_repeats, schedule="stationary")
    unimax = build(sizes, sampler="unimax", num_draws=num_draws, max_repeats=max_repeats)
    assert np.array_equal(clip.draws_per_cluster, stationary.draws_per_cluster)
    assert np.array_equal(unimax.at(np.arange(num_draws)), stationary.at(np.arange(num_draws)))


def test_progressive_starts_even_and_stationary_starts_as_it_ends() -> None:
    shares = {}
    for schedule in ("progressive", "stationary"):
        plan = build([20_000, 500, 500, 500], num_draws=16_000, schedule=schedule)
        cluster, _, _ = plan.at(np.arange(16_000))
        shares[schedule] = [np.bincount(half, minlength=4) / half.size for half in np.split(cluster, 2)]
    assert np.allclose(shares["progressive"][0], 0.25, atol=1e-3)
    assert np.allclose(shares["progressive"][1], [1, 0, 0, 0], atol=1e-3)
    assert np.allclose(shares["stationary"][0], shares["stationary"][1], atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=10).filter(any), st.floats(0.3, 3))
def test_proportional_gives_proportional_shares_to_within_a_draw(sizes: list[int], epochs: float) -> None:
    num_draws = max(1, round(epochs * sum(sizes)))
    plan = build(sizes, sampler="proportional", num_draws=num_draws)
    assert np.abs(plan.draws_per_cluster - np.array(sizes) * (num_draws / sum(sizes))).max() < 1
    assert np.array_equal(plan.draws_per_cluster, build(sizes, sampler="random", num_draws=num_draws).draws_per_cluster)


def test_uniform_gives_every_cluster_the_same_however_small() -> None:
    plan = build([5000, 3, 0, 1], sampler="uniform", num_draws=3000, max_repeats=2)
    assert plan.draws_per_cluster.tolist() == [1000, 1000, 0, 1000]
    assert plan.max_repeats is None
    assert plan.at(np.arange(3000))[2].max() == 999


def test_temperature_runs_from_proportional_to_uniform() -> None:
    for alpha, other in ((1, "proportional"), (0, "clusterclip")):
        warm = build(PAPER, sampler="temperature", alpha=alpha, num_draws=6000)
        assert np.array_equal(warm.draws_per_cluster, build(PAPER, sampler=other, num_draws=6000).draws_per_cluster)
    plan = build([1000, 10], sampler="temperature", alpha=0.5, num_draws=1000, max_repeats=None)
    assert plan.draws_per_cluster.tolist() == [910, 90]  # 10 : 1, the left-over draw to the lower id
    assert build([1000, 10], sampler="temperature", alpha=0.5, num_draws=1000).draws_per_cluster.tolist() == [960, 40]
    with pytest.raises(ConfigError, match="alpha must be between 0 and 4, got -1"):
        build(PAPER, sampler="temperature", alpha=-1, num_draws=6)


@given(st.lists(st.integers(1, 2**50), min_size=1, max_size=20), st.floats(0.01, 4))
def test_power_agrees_with_the_c_library_to_its_last_digits(sizes: list[int], alpha: float) -> None:
    assert np.allclose(power(np.array(sizes), alpha), np.array(sizes, dtype=float) ** alpha, rtol=1e-13, atol=0)


def test_power_is_bit_for_bit_what_it_was() -> None:
    told = [float(value).hex() for value in power(np.array([2, 3, 1000, 123_456_789]), 0.7)]
    assert told == ["0x1.9fdf8bcce533dp+0", "0x1.142e81c889913p+1", "0x1.f791f6509fb66p+6", "0x1.c29174e62a873p+18"]


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as refused:
        build(PAPER, sampler="clusterclop", num_draws=5)
    assert "did you mean 'clusterclip'?" in str(refused.value.hint)


# Budgets


@pytest.mark.parametrize(
    ("budget", "what"),
    [
        ({}, "neither num_draws nor num_tokens nor epochs is given"),
        ({"num_draws": 3, "epochs": 1.0}, "num_draws and epochs are both given"),
        ({"num_draws": 0}, "a plan needs at least one of its draws, got 0"),
        ({"num_tokens": 500}, "a budget in tokens needs the mean length of documents"),
        ({"num_tokens": 500, "mean_tokens": [1.0]}, "mean_tokens must be one number or 6 of them"),
    ],
)
def test_budgets_that_make_no_sense_are_refused_with_a_hint(budget: dict, what: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(PAPER, **budget)
    assert what in refused.value.what
    assert refused.value.hint or "mean_tokens must be" in what


def test_epochs_are_draws_per_document() -> None:
    assert build(PAPER, epochs=2).num_draws == 2 * sum(PAPER)
    assert np.array_equal(build(PAPER, epochs=2).draws_per_cluster, build(PAPER, num_draws=12_810).draws_per_cluster)


def test_a_budget_in_tokens_gives_clusters_equal_tokens_not_equal_draws() -> None:
    plan = build([1000, 1000, 1000], num_tokens=300_000, mean_tokens=[1000, 100, 250])
    assert plan.draws_per_cluster.tolist() == [100, 1000, 400]
    clipped = build([1000, 1000, 2], num_tokens=300_000, mean_tokens=[1000, 100, 250])
    assert clipped.draws_per_cluster.tolist() == [149, 1490, 8]  # the third gives 4 * 2 * 250 tokens
    assert clipped.clipped_C.tolist() == [False, False, True]
    assert clipped.preview().expected_tokens == 149 * 1000 + 1490 * 100 + 2000
    assert summary_lines(clipped)[-1].startswith("tokens   300,000 expected of 300,000")


def test_a_progressive_token_budget_holds_tokens_even_along_the_run() -> None:
    means = np.array([1000, 100, 250])
    plan = build([10_000] * 3, num_tokens=9_000_000, mean_tokens=means)
    cluster, _, _ = plan.at(np.arange(plan.num_draws))
    taken = np.cumsum(np.eye(3)[cluster] * means, axis=0)[plan.order.segments.edges[1:] - 1]
    assert (taken.max(axis=1) - taken.min(axis=1)).max() < means.max()


def test_infeasible_budgets_are_refused_with_the_numbers() -> None:
    with pytest.raises(PlanInfeasible) as refused:
        build(PAPER, num_draws=26_000, where="clusters/web@5be1f0c2a934")
    assert refused.value.what == "plan needs 26,000 draws, but 6,405 documents at max_repeats=4 allow 25,620"
    assert refused.value.where == "clusters/web@5be1f0c2a934"
    assert refused.value.hint == "raise `max_repeats` to 5 or lower `num_draws` to 25,620"
    with pytest.raises(PlanInfeasible, match="plan needs 90,000 tokens, but 2,000 tokens at max_repeats=4 allow 8,000"):
        build([10, 10], num_tokens=90_000, mean_tokens=100)
    with pytest.raises(PlanInfeasible, match="0 documents are there to draw"):
        build([0, 0], num_draws=5)
    with pytest.raises(PlanInfeasible, match="less than half a document"):
        build([10, 10], num_tokens=20, mean_tokens=1000)


# Boosts, floors, ceilings


def test_a_boost_multiplies_the_weight_of_its_cluster() -> None:
    plan = build([1000] * 4, num_draws=1000, boosts={2: 2.0})
    assert plan.draws_per_cluster.tolist() == [200, 200, 400, 200]
    cluster, _, _ = plan.at(np.arange(plan.num_draws))
    assert plan.reason(int(np.flatnonzero(cluster == 2)[0]))["boost"] == 2.0
    assert plan.reason(int(np.flatnonzero(cluster == 2)[0]))["weight"] == 0.4
    assert build([1000] * 4, num_draws=1000, boosts={2: 0.0}).draws_per_cluster.tolist() == [334, 333, 0, 333]
    with pytest.raises(ConfigError, match="there is no cluster 9"):
        build([1000] * 4, num_draws=1000, boosts={9: 2.0})


@pytest.mark.parametrize("schedule", ["progressive", "stationary"])
def test_floors_and_ceilings_hold_and_the_rest_is_shared(schedule: str) -> None:
    plan = build(
        [5000] * 4, num_draws=4000, schedule=schedule, floors=[1600, 0, 0, 0], ceilings=[5000, 300, 5000, 5000]
    )
    assert plan.draws_per_cluster.tolist() == [1600, 300, 1050, 1050]
    cluster, _, _ = plan.at(np.arange(4000))
    assert np.bincount(cluster).tolist() == [1600, 300, 1050, 1050]
    assert plan.reason(0)["floor"] in (0, 1600)


# Questions to a plan


@pytest.mark.parametrize("position", [-1, 12_000, 2**62])
def test_positions_outside_the_run_are_refused(position: int) -> None:
    with pytest.raises(PastTheEnd) as refused:
        build(PAPER, num_draws=12_000).at([0, position])
    assert refused.value.hint == "the plan's positions run from 0 to 11,999"


def test_positions_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="positions must be whole numbers"):
        build(PAPER, num_draws=12_000).at([0.5])


def test_a_reason_says_what_at_says_and_why() -> None:
    plan = build(PAPER, num_draws=12_000)
    for position in (0, 119, 120, 5000, 11_999):
        told = plan.reason(position)
        cluster, document, epoch = (int(column) for column in plan.at(position))
        assert (told["cluster"], told["document_in_cluster"], told["epoch"]) == (cluster, document, epoch)
        assert told["segment_start"] <= position < told["segment_end"]
        assert told["epoch"] == told["draws_before"] // told["cluster_documents"]
        assert told["clipped"] == (cluster != 0)
        assert told["cap"] == 4 * PAPER[cluster]
        assert told["cluster_draws"] == plan.draws_per_cluster[cluster]
        json.dumps(told)
    assert build([5, 5], sampler="uniform", num_draws=80).reason(3)["cap"] is None


def test_a_preview_tells_the_worked_example() -> None:
    told = build(PAPER, num_draws=12_000).preview()
    assert told.level == 6380
    assert [clip.cluster for clip in told.clips] == [5, 4, 3, 2, 1]
    assert [clip.position for clip in told.clips] == [120, 420, 1380, 4020, 9620]
    assert [phase.active_clusters for phase in told.phases] == [6, 5, 4, 3, 2, 1]
    assert [phase.start for phase in told.phases] == [0, 120, 420, 1380, 4020, 9620]
    assert told.phases[-1].end == 12_000
    assert all(phase.largest_share == pytest.approx(1 / phase.active_clusters) for phase in told.phases)
    assert told.repeated_share == pytest.approx(1 - 6405 / 12_000)
    assert told.unused_documents == 0
    assert [gain.cluster for gain in told.losers] == [0]
    assert told.losers[0].times == pytest.approx(6380 / 5000 * 6405 / 12_000)
    assert told.repeats_C.tolist() == pytest.approx([1.276, 4, 4, 4, 4, 4])
    json.dumps(told.to_json())


def test_a_preview_agrees_with_the_draws_themselves() -> None:
    for options in (
        {},
        {"schedule": "stationary"},
        {"sampler": "temperature", "schedule": "progressive", "alpha": 0.2},
    ):
        plan = build([900, 400, 31, 7, 0, 2], num_draws=900, **options)
        cluster, document, epoch = plan.at(np.arange(900))
        told = plan.preview()
        assert told.repeated_share == pytest.approx((epoch > 0).mean())
        assert told.unused_documents == 1340 - len({*zip(cluster.tolist(), document.tolist(), strict=True)})
        shares = np.bincount(cluster) / 900
        shares = shares[shares > 0]
        assert told.effective_clusters == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
        for clip in told.clips:
            last = int(np.flatnonzero(cluster == clip.cluster)[-1])
            assert clip.position - 80 <= last < clip.position + 80  # to within a block


def test_equal_clusters_are_as_effective_as_they_are_many() -> None:
    told = build([50] * 16, num_draws=1600).preview()
    assert told.effective_clusters == pytest.approx(16)
    assert told.gainers == []
    assert told.losers == []


def test_the_lines_for_people_are_those_of_the_style_guide() -> None:
    plan = build([500] * 55 + [100] * 9, num_draws=20_000, max_repeats=3)
    assert summary_lines(plan) == [
        "drew     20,000 times from 28,400 documents in 64 clusters",
        "level    314 draws a cluster; 9 small clusters clipped at 3 repeats",
    ]
    assert summary_lines(build([3], num_draws=1, max_repeats=1)) == [
        "drew     1 times from 3 documents in 1 cluster",
        "level    1 draws a cluster; none clipped at 1 repeats",
    ]
    assert "no clip, up to 8.0 repeats" in summary_lines(build([5, 50], sampler="uniform", num_draws=80))[1]
    assert "level    64 to 640 draws a cluster" in summary_lines(build([32, 320], sampler="proportional", epochs=2))[1]


# Differences


def test_a_plan_does_not_differ_from_itself() -> None:
    told = build(PAPER, num_draws=12_000).diff(build(PAPER, num_draws=12_000))
    assert told.same_order
    assert told.settings == {}
    assert told.changes == []
    assert (told.moved_share, told.documents_added, told.documents_dropped) == (0.0, 0, 0)
    assert not build(PAPER, num_draws=9000).diff(build(PAPER, num_draws=9000, seed=1)).same_order


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_documents_added_and_dropped_are_those_of_the_two_runs(seeds: tuple[int, int]) -> None:
    sizes = [400, 90, 31, 7, 0, 2]
    plans = [
        build(sizes, num_draws=200, max_repeats=1, seed=seeds[0]),
        build(sizes, sampler="proportional", num_draws=180, seed=seeds[1]),
    ]
    drawn = [{*zip(*(c.tolist() for c in plan.at(np.arange(plan.num_draws))[:2]), strict=True)} for plan in plans]
    told = plans[0].diff(plans[1])
    assert told.documents_added == len(drawn[1] - drawn[0])
    assert told.documents_dropped == len(drawn[0] - drawn[1])
    assert told.draws_C.sum() == -20
    assert told.settings["sampler"] == ("clusterclip", "proportional")
    json.dumps(told.to_json())


def test_plans_over_other_clusters_are_not_compared() -> None:
    with pytest.raises(ConfigError, match="over different clusters"):
        build([5, 5], num_draws=5).diff(build([5, 6], num_draws=5))


# The file


def test_a_plan_file_is_canonical_and_says_its_algorithm(tmp_path: Path) -> None:
    build(PAPER, num_draws=12_000).save(tmp_path)
    first = (tmp_path / "plan.json").read_bytes()
    build(PAPER, num_draws=12_000).save(tmp_path)
    assert (tmp_path / "plan.json").read_bytes() == first
    told = json.loads(first)
    assert told["algorithm_version"] == 1
    assert told["segments"]["cut"] == "even"
    assert told["segments"]["segments"] == 6
    assert told["segments"]["blocks"] == 6380
    assert told["clusters"]["draws"] == [6380, 4000, 1200, 320, 80, 20]
    assert first == json.dumps(told, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("keep", [0, 1, 50, -2, -10])
def test_a_torn_plan_file_is_refused(tmp_path: Path, keep: int) -> None:
    build(PAPER, num_draws=12_000).save(tmp_path)
    path = tmp_path / "plan.json"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError):
        SamplingPlan.open(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("algorithm_version", 2, "order algorithm 2"),
        ("format", 2, "format 2"),
        ("num_draws", 11_999, "segments do not follow"),
        ("seed", None, "lacks or misstates"),
        ("clusters", None, "lacks or misstates"),
        ("clusters", {"sizes": [1], "draws": [1, 2], "caps": [1]}, "lacks or misstates"),
        ("boosts", [], "lacks or misstates"),
        ("level", [1, 0], "lacks or misstates"),
        ("segments", {"cut": "even"}, "segments do not follow"),
    ],
)
def test_a_plan_file_of_another_meaning_is_refused(tmp_path: Path, key: str, value: object, what: str) -> None:
    build(PAPER, num_draws=12_000).save(tmp_path)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(FormatError, match=what):
        SamplingPlan.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("draws", [6380, 4000, 1200, 320, 80]),
        ("draws", [-1, 4000, 1200, 320, 80, 20]),
        ("sizes", [0, 1000, 300, 80, 20, 5]),
        ("sizes", "many"),
        ("draws", None),
        ("rates", [1.0]),
        ("rates", [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("weights", [1, 2]),
    ],
)
def test_lists_that_do_not_fit_the_clusters_are_refused(tmp_path: Path, name: str, values: object) -> None:
    build(PAPER, num_draws=12_000).save(tmp_path)
    path = tmp_path / "plan.json"
    told = json.loads(path.read_text())
    told["clusters"][name] = values
    path.write_text(json.dumps(told))
    with pytest.raises(FormatError, match="lacks or misstates"):
        SamplingPlan.open(tmp_path)


def test_changed_draws_are_found_by_the_digest_of_the_cut(tmp_path: Path) -> None:
    build(PAPER, num_draws=12_000).save(tmp_path)
    path = tmp_path / "plan.json"
    told = json.loads(path.read_text())
    told["clusters"]["draws"][:2] = [6379, 4001]
    path.write_text(json.dumps(told))
    with pytest.raises(FormatError, match="segments do not follow"):
        SamplingPlan.open(tmp_path)


def test_a_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        SamplingPlan.open(tmp_path)


def test_a_plan_without_members_says_so() -> None:
    with pytest.raises(InputError, match="built from sizes alone"):
        build(PAPER, num_draws=5).document_numbers([0], [0])
