from hybridflow.config import compose
from hybridflow.config.provenance import Layer, Origins, line_of


def test_the_line_of_a_key(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("one: 1\ntwo:\n  # a comment\n  three: 3\n")
    assert line_of(file, ["two", "three"]) == 4
    assert line_of(file, ["two"]) == 2
    assert line_of(file, ["two", "four"]) is None and line_of(file, ["one", "x"]) is None


def test_later_files_win_and_packages_are_taken_off(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("tensor: 1\npipeline: 2\n")
    second.write_text("\n\nactor:\n  parallel:\n    tensor: 2\n")
    origins = Origins([Layer(first, "actor.parallel"), Layer(second, "")])
    assert origins.find("actor.parallel.tensor").endswith("second.yaml:5")
    assert origins.find("actor.parallel.pipeline").endswith("first.yaml:2")
    assert origins.find("critic.parallel.tensor") is None
    assert origins.annotate("actor.parallel.tensor: bad").endswith("second.yaml:5)")


def test_the_command_line_wins(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("run:\n  seed: 1\n")
    origins = Origins([Layer(file, "")], compose.parse(["run.seed=2"]))
    assert origins.find("run.seed") == origins.find("run") == "run.seed=2 on the command line"
    assert origins.annotate("run.name: bad") == "run.name: bad"
