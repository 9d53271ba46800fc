import pytest

from hybridflow.config import key_suggestions


def test_every_key_of_the_schema_is_known():
    found = list(key_suggestions.all_keys())
    assert "actor.parallel.tensor" in found and "plugins" in found
    assert [key for key in found if key_suggestions.unknown(key)] == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("actor.paralel", "actor.paralel: no such key; did you mean actor.parallel?"),
        ("actor.paralel.tensor", "actor.paralel: no such key; did you mean actor.parallel?"),
        ("actor.lr", "actor.lr: no such key; did you mean actor.optimizer.lr?"),
        ("critic.lr", "critic.lr: no such key; did you mean critic.optimizer.lr?"),
        ("experimen", "experimen: no such key; did you mean experiment?"),
        ("run.seed.x", "run.seed.x: no such key; run.seed is a single value"),
    ],
)
def test_the_nearest_key_is_named(key, message):
    assert key_suggestions.unknown(key, groups=["experiment"]) == message


def test_with_nothing_near_the_siblings_are_listed():
    assert key_suggestions.unknown("run.zzz") == "run.zzz: no such key. run has: name, root, seed"


def test_keys_below_a_dictionary_are_free():
    assert key_suggestions.unknown("task.options.digits") is None
    assert key_suggestions.is_free("task.options.digits") and key_suggestions.is_free("placement.pools.judges")
    assert key_suggestions.is_free("reward.graders") and key_suggestions.is_free("task.options.sources.easy.weight")
    assert not key_suggestions.is_free("task.name") and not key_suggestions.is_free("task.nothing")
