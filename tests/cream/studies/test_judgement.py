"""The statistics of a ranking, by hand and by scipy, and their bootstrap over nets and seeds."""

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from cream.studies.judgement import Bootstrap, Judge, with_interval


def judge(true, mflops=None, depth=None, limit=np.inf, counts=None):
    true = np.asarray(true, float)
    mflops = np.arange(len(true), dtype=float) if mflops is None else np.asarray(mflops, float)
    depth = np.zeros(len(true)) if depth is None else np.asarray(depth)
    return Judge(true, mflops, depth, limit, np.ones((1, len(true))) if counts is None else counts)


def once(judged, score):
    return {name: value.item() for name, value in judged(np.asarray(score, float)).items()}


def test_by_hand():
    # Four nets, of six pairs one discordant; costs 4, 1, 2, 3; depths in two pairs, of which one is discordant.
    found = once(judge([1, 2, 3, 4], [4, 1, 2, 3], [1, 1, 2, 2], limit=3), [1, 2, 4, 3])
    assert found["tau"] == pytest.approx(4 / 6)
    assert found["spearman"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert found["tau in depth"] == 0  # one pair of each kind
    # With the costs: the accuracies have 3 concordant and 3 discordant pairs, tau 0; the score 2 and 4, tau -1/3.
    assert found["partial tau"] == pytest.approx((2 / 3) / np.sqrt(1 - 1 / 9))
    assert found["top ten"] == 2.5
    assert (found["pick"], found["pick misses"]) == (3, 1)
    cheap = once(judge([1, 2, 3, 4], [4, 1, 2, 3], limit=2), [1, 2, 4, 3])
    assert (cheap["pick"], cheap["pick misses"]) == (3, 0)
    none = once(judge([1, 2, 3, 4], [4, 1, 2, 3], limit=0.5), [1, 2, 4, 3])
    assert np.isnan([none["pick"], none["pick misses"]]).all()


def test_of_equal_scores_the_cheaper_net_is_picked():
    assert once(judge([5, 6, 7], [3, 1, 2]), [1, 1, 0])["pick"] == 6


def test_ten_best_of_twelve():
    true = np.arange(12.0)
    assert once(judge(true), true)["top ten"] == np.mean(true[2:])
    assert once(judge(true), -true)["top ten"] == np.mean(true[:10])


@pytest.mark.parametrize("levels", [1000, 6])
def test_coefficients_are_scipys_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    true, score, cost = (rng.integers(levels, size=40).astype(float) for _ in range(3))
    score += true
    depth = rng.integers(3, size=40)
    found = once(judge(true, cost, depth), score)
    xy, xz, yz = (kendalltau(*pair)[0] for pair in ((score, true), (score, cost), (true, cost)))
    assert found["tau"] == pytest.approx(xy)
    assert found["partial tau"] == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert found["spearman"] == pytest.approx(spearmanr(score, true)[0])
    concordance, untied_score, untied_true = 0, 0, 0
    for i in range(40):
        for j in range(i):
            if depth[i] == depth[j]:
                concordance += np.sign(score[i] - score[j]) * np.sign(true[i] - true[j])
                untied_score += score[i] != score[j]
                untied_true += true[i] != true[j]
    assert found["tau in depth"] == pytest.approx(concordance / np.sqrt(untied_score * untied_true))


def test_counts_are_resamples_written_out():
    rng = np.random.default_rng(2)
    true, score, cost = (rng.integers(9, size=15).astype(float) for _ in range(3))
    depth = rng.integers(3, size=15)
    drawn = rng.integers(15, size=(7, 15))
    counts = np.stack([np.bincount(row, minlength=15) for row in drawn])
    found = judge(true, cost, depth, 4, counts)(score)
    for k, row in enumerate(drawn):
        expected = once(judge(true[row], cost[row], depth[row], limit=4), score[row])
        assert {name: values[k] for name, values in found.items()} == pytest.approx(expected, nan_ok=True)


def test_what_cannot_be_ranked_has_no_coefficient():
    constant = once(judge([1, 2, 3]), [5, 5, 5])
    assert np.isnan([constant[name] for name in ("tau", "spearman", "partial tau", "tau in depth")]).all()
    by_cost = once(judge([1, 3, 2], [1, 2, 3]), [1, 2, 3])
    assert by_cost["tau"] == pytest.approx(1 / 3) and np.isnan(by_cost["partial tau"])  # nothing is left given the cost


def test_draws_are_paired_over_nets_and_seeds():
    bootstrap = Bootstrap(20, seed=3, resamples=500)
    assert (bootstrap.counts.sum(axis=1) == 20).all() and (bootstrap.counts[0] == 1).all()
    constant = [{"tau": np.full(501, value)} for value in (0.1, 0.4, 0.7)]
    mean = bootstrap.over_seeds(constant)["tau"]
    assert mean[0] == pytest.approx(0.4)
    assert mean[1:].std() == pytest.approx(np.std([0.1, 0.4, 0.7]) / np.sqrt(3), rel=0.15)
    shifted = bootstrap.over_seeds([{"tau": each["tau"] + 0.05} for each in constant])["tau"]
    np.testing.assert_allclose(shifted - mean, 0.05)  # the same draws, so that the difference has no spread
    alone = bootstrap.over_seeds(constant[:1])["tau"]
    np.testing.assert_allclose(alone, 0.1)


def test_the_interval_is_that_of_resampled_nets():
    rng = np.random.default_rng(5)
    true = rng.normal(size=60)
    score = true + rng.normal(size=60)
    found = with_interval(judge(true, counts=Bootstrap(60).counts)(score)["tau"])
    draws = np.random.default_rng(11).integers(60, size=(1000, 60))
    expected = np.quantile([kendalltau(score[draw], true[draw])[0] for draw in draws], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(expected, abs=0.03)
    assert found.value == pytest.approx(kendalltau(score, true)[0]) and found.low < found.value < found.high


def test_a_statistic_without_values_has_no_interval():
    assert np.isnan(list(vars(with_interval(np.full(5, np.nan))).values())).all()
