"""The command `gradsmith`, as users run it: against a real service, and in a process of its own where that matters."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import gradsmith
from app.settings import Settings
from gradsmith.cli import complete
from gradsmith.cli.given import _SECTION_OF, settings, value
from gradsmith.cli.picture import chart
from gradsmith.cli.program import program
from gradsmith.cli.show import duration, sparkline
from gradsmith.cli.sweeps import halving, swept
from gradsmith.types import Job
from models.families import FAMILIES
from models.spec import EvaluationPlan, Recipe
from workshop.keyed import make_key, with_keys
from workshop.serving import serving

SHORT = ["--set", "recipe.meta_steps=20", "--set", "recipe.tasks=16", "--set", "recipe.validation_tasks=8"]
SHORT += ["--set", "recipe.validation_interval=10", "--set", "evaluation.test_tasks=8"]
SHORT += ["--set", "evaluation.tuning_tasks=4", "--set", "evaluation.horizon=20"]
SHORT += ["--set", "recipe.horizon=20", "--set", "evaluation.bootstrap_samples=100", "--set", "evaluation.untuned=[]"]
SHORT += ["--set", 'evaluation.baselines=["adam"]', "--set", 'evaluation.schedules=["constant"]']


def command(*arguments: str, url: str = "http://127.0.0.1:9", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradsmith.cli", *arguments],
        env={**os.environ, "GRADSMITH_URL": url, "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def called(*arguments: str, url: str = "http://127.0.0.1:9") -> subprocess.CompletedProcess[str]:
    """What `command` gives, from this process, which has imported everything already."""
    done = CliRunner().invoke(program, arguments, prog_name="gradsmith", env={"GRADSMITH_URL": url})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def said(url: str, *arguments: str) -> str:
    done = called(*arguments, url=url)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_curve_is_drawn_by_its_logarithm_with_its_ends() -> None:
    drawn = chart([100.0, 10.0, 1.0], width=3, height=4)
    assert [line.split()[0] for line in (drawn[0], drawn[-1])] == ["100", "1"]
    columns = ["".join(line.ljust(14)[11 + place] for line in drawn) for place in range(3)]
    assert columns == ["████", "  ██", "   ▁"]
    assert chart([None, float("nan")]) == ["(no finite loss: it diverged)"]
    assert all(line.ljust(14)[12] == " " for line in chart([2.0, None, 1.0], width=3, height=4)), "a gap"


def test_help_loads_neither_torch_nor_httpx() -> None:
    program = (
        "import sys\nfrom gradsmith.cli.program import program\n"
        "try:\n    program(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'httpx', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"
    for name in ("train", "jobs", "optimizers", "families", "evaluate", "compare", "login", "doctor"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("jbs",), 2, "Did you mean 'jobs'"),
        (("train", "quadratic", "--set", "recipes.meta_steps=3"), 2, "--set takes recipe...=VALUE"),
        (("train", "quadratic", "--set", "recipes.meta_steps=3"), 2, "did you mean recipe.meta_steps=3?"),
        (("train", "quadratic", "--set", "meta_steps=30"), 2, "did you mean recipe.meta_steps=30?"),
        (("train", "quadratic", "--set", "rule.kind=mlp"), 2, "did you mean recipe.rule.kind=mlp?"),
        (("evaluate", "quadratic@1", "--set", "horizon=9"), 2, "did you mean evaluation.horizon=9?"),
        (("train", "quadratic", "--set", "recipe.meta_steps"), 2, "not 'recipe.meta_steps'"),
        (("train", "quadratic", "--label", "team"), 2, "a label is KEY=VALUE, not 'team'"),
        (("jobs", "--json", "list"), 2, "`gradsmith jobs list --json`"),
        (("keys", "revoke", "gs_0123_secret"), 2, "what you gave is a key itself"),
        (("optimizers", "alias", "quadratic", "quadratic@1"), 2, "an alias is FAMILY@ALIAS"),
        (("families",), 2, "the server's address must begin with http:// or https://"),
        (("jobs",), 5, "no answer from the Gradsmith server at http://127.0.0.1:9"),
    ],
)
def test_what_goes_wrong_has_a_code_and_a_next_step(arguments: tuple[str, ...], code: int, message: str) -> None:
    url = "nowhere" if arguments == ("families",) else "http://127.0.0.1:9"
    done = (command if code == 5 else called)(*arguments, url=url)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.service
@pytest.mark.timeout(400)
def test_a_training_is_followed_to_its_verdict(service_url: str, tmp_path: Path) -> None:
    done = command("train", "quadratic", *SHORT, "--label", "made_by=command", "--follow", url=service_url)
    assert done.returncode == 0, done.stderr
    job, *told = done.stdout.splitlines()
    assert job.startswith("job_")
    assert re.search(r"^(wins|ties|loses) at the end: [\d.e+-]+ \[[\d.e+-]+, [\d.e+-]+\] of the loss of tuned", told[0])
    assert "learned" in done.stdout
    assert "20/20" in done.stderr
    measured, listed = json.loads(said(service_url, "jobs", "list", "--label", "made_by=command", "--json"))
    assert (listed["id"], listed["spec"]["recipe"]["meta_steps"], measured["parent"]) == (job, 20, job)
    reference = re.search(r"quadratic@\d+", told[-1])
    assert reference is not None
    place = tmp_path / "rule.safetensors"
    assert "bytes" in said(service_url, "optimizers", "pull", reference.group(), "-o", str(place))
    assert gradsmith.load(place) is not None
    again = command(
        "train", "quadratic", *SHORT, "--set", "recipe.tasks=8", "--no-evaluate", "--follow", url=service_url
    )
    assert again.returncode == 0, again.stderr
    rows = said(service_url, "compare", job, "@last")
    assert re.search(r"recipe\.tasks +16 +8", rows)


@pytest.mark.long
@pytest.mark.service
@pytest.mark.timeout(400)
def test_a_price_is_told_before_and_after_a_preview(service_url: str) -> None:
    few = [*SHORT, "--set", "recipe.patience=null", "--set", "recipe.meta_steps=21"]
    before = said(service_url, "train", "quadratic", *few, "--set", "recipe.unroll_steps=5", "--dry-run")
    assert re.search(r"coordinates +10 a task", before)
    assert re.search(r"memory +0\.\d\d GiB", before)
    assert re.search(r"seconds +not known", before)
    assert "gradsmith families preview quadratic" in " ".join(before.split())
    shown = said(service_url, "families", "preview", "quadratic", *few, "--set", "recipe.unroll_steps=5")
    assert re.search(r"seconds +[\d.]+ s: training [\d.]+ s, selection", shown)
    assert "adam, learning rate" in shown
    assert "▁" in shown or "█" in shown
    after = json.loads(
        said(service_url, "train", "quadratic", *few, "--set", "recipe.unroll_steps=5", "--dry-run", "--json")
    )
    assert after["seconds"]["total"] > 0
    assert "a calibration of" in after["rests_on"][0]
    both = [*few, "--set", "recipe.unroll_steps=5", "--set", "recipe.meta_steps=21,42"]
    many = said(service_url, "sweep", "quadratic", *both, "--dry-run")
    assert re.search(r"seconds +[\d.]+ s: training [\d.]+ s, selection", many)
    assert "one worker for 2 trainings" in " ".join(many.split())


@pytest.mark.service
@pytest.mark.timeout(400)
def test_what_was_made_is_shown_aliased_and_found_by_short_names(
    service: gradsmith.Client, service_url: str, trained: Job
) -> None:
    shown = said(service_url, "jobs", "show", trained.id[-12:])
    assert trained.id in shown
    assert re.search(r"meta-loss +[▁▂▃▄▅▆▇█]{10,}", shown)
    assert json.loads(said(service_url, "jobs", "show", trained.id[4:], "--json"))["id"] == trained.id
    assert trained.optimizer is not None
    record = said(service_url, "optimizers", "show", trained.optimizer)
    assert service.optimizers.get(trained.optimizer).answer in record
    assert "gradsmith.LearnedOptimizer(model.parameters(), 'quadratic@" in record
    named = said(service_url, "optimizers", "alias", "quadratic@spoken", trained.optimizer)
    assert named.startswith("quadratic@spoken is quadratic@")
    assert "before quadratic@" in said(service_url, "optimizers", "alias", "quadratic@spoken", trained.optimizer)
    assert "spoken" in said(service_url, "optimizers")
    service.aliases.delete(service.aliases.get("quadratic", "spoken"))  # other tests list the aliases
    assert re.search(r"1-\d+  succeeded$", said(service_url, "jobs", "logs", trained.id).strip())
    assert "quadratic" in said(service_url, "families")
    assert "change with --set recipe" in said(service_url, "families", "show", "quadratic")
    assert "ok  answers" in said(service_url, "doctor")
    for arguments, message in (
        (("jobs", "show", "job_nothing"), "no job 'job_nothing'"),
        (("jobs", "show", "job_0"), "begins or ends several jobs"),
        (("optimizers", "show", "quadratic@nobody"), "no alias of that family"),
        (("families", "show", "quadratik"), "Did you mean 'quadratic'"),
    ):
        done = called(*arguments, url=service_url)
        assert (done.returncode, message in done.stderr) == (4, True), done.stderr
    refused = called("train", "quadratic", "--set", "recipe.meta_steps=none", url=service_url)
    assert (refused.returncode, "meta_steps" in refused.stderr) == (2, True)


@pytest.mark.service
@pytest.mark.timeout(400)
def test_a_family_is_declared_from_a_file(service_url: str, tmp_path: Path) -> None:
    file = tmp_path / "family.json"
    tasks: dict[str, Any] = {"kind": "expression", "parameters": {"x": {"kind": "normal", "shape": [3]}}}
    file.write_text(json.dumps({"name": "bowl", "tasks": tasks | {"loss": "sum(x**2)"}}))
    assert "bowl: 3 coordinates" in said(service_url, "families", "create", str(file))
    file.write_text(json.dumps({"name": "bowl-2", "tasks": tasks | {"loss": "sum(y**2)"}}))
    done = called("families", "create", str(file), url=service_url)
    assert (done.returncode, "column 5: there is no 'y'" in done.stderr) == (2, True), done.stderr


@pytest.mark.service
@pytest.mark.timeout(400)
def test_control_c_detaches_and_the_job_runs_on(
    service: gradsmith.Client, service_url: str, request: pytest.FixtureRequest
) -> None:
    """In a terminal, where the line is drawn anew; then it is cancelled, which ends a watch with 1."""
    job = service.jobs.create(family="quadratic", recipe={"meta_steps": 100_000, "patience": 1000}, evaluate=False)
    request.addfinalizer(lambda: service.jobs.cancel(job))  # others wait for the same worker
    main, other = pty.openpty()
    environment = {**os.environ, "GRADSMITH_URL": service_url, "COLUMNS": "160", "TERM": "xterm"}
    watching = subprocess.Popen(
        [sys.executable, "-m", "gradsmith.cli", "jobs", "watch", job.id],
        env=environment, stdin=other, stdout=subprocess.PIPE, stderr=other, text=True,
    )  # fmt: skip
    os.close(other)
    seen = b""
    deadline = time.monotonic() + 120
    while not re.search(r"loss .*[▁▂▃▄▅▆▇█]", seen.decode(errors="replace")) and time.monotonic() < deadline:
        seen += os.read(main, 4096)
    assert b"training" in seen
    watching.send_signal(signal.SIGINT)
    told, _ = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert told == ""  # what is drawn is no output
    rest = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(main, 4096):
            rest += part
    assert b"runs on" in rest
    os.close(main)
    assert service.jobs.get(job).status == "running"
    assert "cancel" in said(service_url, "jobs", "cancel", job.id)
    ended = called("jobs", "watch", job.id, url=service_url)
    assert (ended.returncode, "cancelled" in ended.stderr) == (1, True), ended.stderr
    ended = called("jobs", "watch", job.id, "--json", url=service_url)
    assert (ended.returncode, json.loads(ended.stdout)["status"]) == (1, "cancelled")


def test_login_is_kept_for_this_user_alone_and_the_key_goes_to_no_other_server(tmp_path: Path) -> None:
    from gradsmith.cli import service

    old = dict(os.environ)
    os.environ |= {"XDG_CONFIG_HOME": str(tmp_path)}
    for name in ("GRADSMITH_URL", "GRADSMITH_API_KEY"):
        os.environ.pop(name, None)
    try:
        path = service.keep("http://127.0.0.1:9", "gs_key_secret")
        assert path.stat().st_mode & 0o777 == 0o600
        with service.client() as client:
            assert client.base_url == "http://127.0.0.1:9"
            assert client._executor.connection.headers["Authorization"] == "Bearer gs_key_secret"
        os.environ["GRADSMITH_URL"] = "http://127.0.0.1:10"
        with service.client() as client:
            assert "Authorization" not in client._executor.connection.headers
    finally:
        os.environ.clear()
        os.environ.update(old)


def test_keys_are_made_listed_and_revoked_and_others_are_turned_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRADSMITH_API_KEY", raising=False)
    locked = with_keys(settings)
    admin = make_key(locked, "admin")
    with serving(locked) as url:
        done = called("jobs", url=url)
        assert (done.returncode, "key" in done.stderr) == (3, True), done.stderr
        assert called("doctor", url=url).returncode == 3
        monkeypatch.setenv("GRADSMITH_API_KEY", admin)
        made = called("keys", "create", "nightly", "--scope", "read", "--days", "1", url=url)
        assert (made.returncode, made.stdout.strip().startswith("gs_")) == (0, True), made.stderr
        assert "shown only now" in made.stderr
        listed = json.loads(said(url, "keys", "--json"))
        assert {each["name"] for each in listed} == {"nightly", "default admin"}
        assert made.stdout.strip() not in json.dumps(listed)
        id_ = next(each["id"] for each in listed if each["name"] == "nightly")
        monkeypatch.setenv("GRADSMITH_API_KEY", made.stdout.strip())
        refused = called("train", "quadratic", url=url)
        assert (refused.returncode, "scope submit" in refused.stderr) == (3, True), refused.stderr
        monkeypatch.setenv("GRADSMITH_API_KEY", admin)
        assert said(url, "keys", "revoke", id_[-8:]) == f"Revoked {id_}.\n"
        assert json.loads(said(url, "keys", "list", "--json"))[0]["status"] == "revoked"
        assert called("keys", "create", "x", "--scope", "root", url=url).returncode == 2


@pytest.mark.service
@pytest.mark.timeout(400)
def test_names_may_be_short_or_nearly_right(service: gradsmith.Client, service_url: str, trained: Job) -> None:
    assert trained.optimizer is not None
    for name in (trained.optimizer[:28], trained.optimizer[-8:]):
        assert json.loads(said(service_url, "optimizers", "show", name, "--json"))["id"] == trained.optimizer
    newest = service.optimizers.list(limit=1).data[0].id
    assert json.loads(said(service_url, "optimizers", "show", "@last", "--json"))["id"] == newest
    address = json.loads(said(service_url, "open", trained.id[-8:], "--json"))["url"]
    assert address == f"{service_url}/#/jobs/{trained.id}"
    assert said(service_url, "open", "quadratic@1", "--json").strip().endswith('#/optimizers/quadratic@1"\n}')
    rows = said(service_url, "compare", trained.optimizer, trained.id)
    assert "optimizer" in rows
    for arguments, meant in (
        (("optimizers", "show", "quadratic@lastest"), "Did you mean 'quadratic@latest'?"),
        (("optimizers", "pull", "quadratik@best"), "Did you mean"),
        (("train", "quadratick", "--json"), "Did you mean 'quadratic'?"),
        (("train", "quadratic", "--set", "recipe.meta_step=3"), "meta_steps"),
        (("optimizers", "show", "opt_f"), "no optimizer 'opt_f'"),
        (("jobs", "watch", "job_nothing"), "no job 'job_nothing'"),
    ):
        done = called(*arguments, url=service_url)
        assert (done.returncode in {2, 4}, meant in done.stderr) == (True, True), done.stderr


@pytest.mark.service
@pytest.mark.timeout(400)
def test_every_command_that_shows_something_has_it_as_json(service_url: str, trained: Job, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b\n1,2\n3,4\n")
    for arguments in (
        ("jobs",), ("jobs", "list", "--limit", "2"), ("jobs", "show", trained.id), ("jobs", "watch", trained.id),
        ("optimizers",), ("optimizers", "show", "quadratic@1"),
        ("optimizers", "pull", "quadratic@1", "-o", str(tmp_path / "rule")),
        ("families",), ("families", "show", "quadratic"), ("data", "add", str(rows), "--name", "rows"), ("data",),
        ("data", "show", "rows"), ("data", "delete", "rows"), ("compare", trained.id, "quadratic@1"), ("doctor",),
        ("open",),
    ):  # fmt: skip
        assert json.loads(said(service_url, *arguments, "--json")) is not None, arguments
    first, *_ = said(service_url, "jobs", "logs", trained.id, "--json").splitlines()
    assert json.loads(first)["kind"] == "status"


@pytest.mark.timeout(400)
def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    """In bash, with what `gradsmith --show-completion` prints."""
    program = tmp_path / "gradsmith"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gradsmith.cli "$@"\n')
    program.chmod(0o755)
    asked = [("gradsmith", "jo"), ("gradsmith", "train", "quadratic", "--fo")]
    script = 'eval "$(gradsmith --show-completion bash)"\n' + "".join(
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _gradsmith_completion gradsmith\n"
        'echo "${COMPREPLY[*]}"\n'
        for words in asked
    )
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=350, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["jobs", "--follow"], done.stdout + done.stderr


@pytest.mark.service
@pytest.mark.timeout(400)
def test_names_that_the_server_has_are_completed(
    service_url: str, trained: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "_SECONDS", 60.0)  # of a machine that is busy
    done = CliRunner().invoke(
        program, [], prog_name="gradsmith",
        env={"GRADSMITH_URL": service_url, "_GRADSMITH_COMPLETE": "complete_bash",
             "COMP_WORDS": "gradsmith\ntrain\ndigits-m", "COMP_CWORD": "2"},
    )  # fmt: skip
    found = done.stdout.split()
    assert "digits-mlp" in found
    assert all(name.startswith("digits-m") for name in found)
    monkeypatch.setenv("GRADSMITH_URL", service_url)
    assert "quadratic@latest" in [name for name, _ in complete.optimizers("quadratic@la")]
    assert [name for name, _ in complete.jobs(trained.id[:-1])] == [trained.id]
    assert [name for name, _ in complete.jobs(trained.id[-8:-1])] == [trained.id[-8:]]
    assert [name for name, _ in complete.both("@")] == ["@last"]


def test_completion_of_names_is_empty_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSMITH_URL", "http://127.0.0.1:9")
    for names in (complete.families, complete.jobs, complete.optimizers, complete.datasets):
        assert names("") == []


def test_values_are_json_where_they_can_be() -> None:
    pairs = ["recipe.meta_steps=300", "recipe.rule.kind=mlp", "tasks.hidden=[16]", "recipe.rollback=0.1"]
    assert settings(pairs, ("recipe", "tasks")) == {
        "recipe": {"meta_steps": 300, "rule": {"kind": "mlp"}, "rollback": 0.1},
        "tasks": {"hidden": [16]},
    }


def test_a_field_without_its_section_is_told_one_that_has_it() -> None:
    tasks = {name for family in FAMILIES.values() for name in type(family.tasks).model_fields}
    have = {"recipe": {*Recipe.model_fields}, "evaluation": {*EvaluationPlan.model_fields}, "tasks": tasks}
    assert {name: {*fields} - have[name] for name, fields in _SECTION_OF.items()} == {name: set() for name in have}


def test_a_list_of_words_needs_no_quotes() -> None:
    for read in (value, swept):
        for text in ("[nag,adam]", "nag,adam", "[ nag, adam ]", '["nag", "adam"]'):
            assert settings([f"evaluation.baselines={text}"], ("evaluation",), read) == {
                "evaluation": {"baselines": ["nag", "adam"]}
            }
        assert settings(["evaluation.baselines=nag"], ("evaluation",), read)["evaluation"] == {"baselines": ["nag"]}
        assert settings(["recipe.rule.kind=mlp"], ("recipe",), read) == {"recipe": {"rule": {"kind": "mlp"}}}
    assert value('[{"a"]') == '[{"a"]', "what is meant as JSON is not guessed at"


def test_what_is_swept_is_a_list_or_a_range() -> None:
    assert swept("100,200") == [100, 200]
    assert swept("area, final") == ["area", "final"]
    assert swept("[[50],[50,100]]") == [[50], [50, 100]]
    assert swept("0.001..0.1:log") == {"low": 0.001, "high": 0.1, "log": True}
    assert swept("8..32") == {"low": 8, "high": 32}
    assert (swept("0.3"), swept("mlp")) == (0.3, "mlp")
    assert (halving("3"), halving("3:2")) == ({"rungs": 3}, {"rungs": 3, "reduction": 2})


@pytest.mark.long
def test_a_sweep_is_followed_to_its_table(service_url: str) -> None:
    swept_here = [
        "--set",
        "recipe.meta_learning_rate=0.001,0.01",
        "--label",
        "study=rates",
        "--no-evaluate",
        "--follow",
    ]
    shown = said(service_url, "sweep", "quadratic", *SHORT, *swept_here, "--seed", "3")
    sweep = shown.split()[0]
    table = [line.split() for line in shown.splitlines() if line.strip().startswith(("0", "1"))]
    assert sorted(row[0].rstrip("*") for row in table) == ["0", "1"]
    assert [row[0][-1] == "*" for row in table] == [True, False]
    assert "lower is better" in shown
    made = json.loads(said(service_url, "jobs", "list", "--sweep", sweep, "--json"))
    assert {job["trial"]["values"]["recipe.meta_learning_rate"] for job in made} == {0.001, 0.01}
    with gradsmith.Client(service_url) as client:
        search = client.sweeps.get(sweep)
        assert search.best is not None
        assert search.best.optimizer == client.jobs.get(sweep).optimizer
        assert search.best.score == min(trial.score for trial in search.trials if trial.score is not None)
        assert client.sweeps.picture(sweep, "svg").rstrip().endswith(b"</svg>")
        children = client.jobs.list(sweep=sweep)
        assert {(job.sweep, job.trial) for job in children} == {(sweep, 0), (sweep, 1)}


def test_a_curve_in_a_line_falls_as_the_curve_does() -> None:
    assert sparkline([8.0, 4.0, 2.0, 1.0]) == "█▆▃▁"
    assert sparkline([1.0] * 3) == "▁▁▁"
    assert sparkline([float("nan"), 1.0]) == ""
    assert len(sparkline([1.0 / (step + 1) for step in range(1000)], 30)) == 30
    assert [duration(seconds) for seconds in (None, 5.2, 130, 7300, 200_000)] == ["", "5 s", "2 min", "2 h", "2 d"]
