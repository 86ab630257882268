"""What docker-compose.yml and the Dockerfile promise. The static checkers themselves run in `./run check`."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from app.settings import Settings
from gradsmith.rules.kernels.sizes import USUAL
from models.families import FAMILIES

ROOT = Path(__file__).parents[1]
COMPOSE = YAML(typ="safe").load(ROOT / "docker-compose.yml")
SERVICES = COMPOSE["services"]
OURS = ["api", "worker", "worker-gpu", "migrate"]
LONG_RUNNING = [name for name in SERVICES if name != "migrate"]
BUCKET = {
    "GRADSMITH_BLOBS", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
}  # fmt: skip
"""Taken from the environment of whoever starts the containers."""
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def stage(name):
    """The Dockerfile's lines of one stage."""
    return re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S).group(1)


def test_the_services_are_the_promised_ones():
    assert set(SERVICES) == {"api", "worker", "worker-gpu", "migrate", "redis", "postgres"}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert all("profiles" not in SERVICES[name] for name in SERVICES if name != "worker-gpu")


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_restarts_is_checked_and_gets_time_to_stop(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert int(service["stop_grace_period"].removesuffix("s")) >= 15


def test_a_worker_gets_longer_to_stop_than_it_gives_its_job():
    main = (ROOT / "workers" / "main.py").read_text()
    seconds = float(re.search(r"^KILL_AFTER_SECONDS = ([\d.]+)$", main, re.M).group(1))
    for name in ("worker", "worker-gpu"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > seconds


def test_nothing_is_published_beyond_this_machine_and_only_the_api_at_all():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])


@pytest.mark.parametrize("name", ["api", "worker", "worker-gpu"])
def test_our_services_wait_for_the_stores_and_the_schema(name):
    assert SERVICES[name]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }


@pytest.mark.parametrize("name", OURS)
def test_our_settings_are_ones_that_exist(name, monkeypatch):
    known = {f"GRADSMITH_{field.upper()}" for field in Settings.model_fields} | {"DATABASE_URL", "REDIS_URL"}
    given = SERVICES[name]["environment"]
    passed_on = {key for key, value in given.items() if value is None}
    assert passed_on == (set() if name == "migrate" else BUCKET)
    environment = {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in given.items() if value is not None}
    assert set(environment) <= known
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert settings.resolved_database_url == "postgresql+psycopg://gradsmith:gradsmith@postgres:5432/gradsmith"
    assert settings.resolved_redis_url == "redis://:gradsmith@redis:6379/0"
    if name == "api":
        assert (settings.host, settings.auth) == ("0.0.0.0", "off")
        assert "api" in settings.allowed_hosts


def test_the_gpu_worker_reserves_a_device_and_takes_the_gpu_queue():
    service = SERVICES["worker-gpu"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert service["command"][-2:] == ["--queues", "gpu"]
    assert "/whl/cu" in service["build"]["args"]["TORCH_INDEX"]


def test_what_must_survive_is_in_named_volumes_and_redis_keeps_a_log():
    assert set(COMPOSE["volumes"]) == {"data", "redis", "postgres"}
    for name, volume in (("redis", "redis:/data"), ("postgres", "postgres:/var/lib/postgresql/data")):
        assert SERVICES[name]["volumes"] == [volume]
    assert "--appendonly yes" in SERVICES["redis"]["command"][-1]


def test_no_secret_is_fixed_in_the_file():
    text = (ROOT / "docker-compose.yml").read_text()
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        assert re.findall(rf"(?<!\$)\$\{{{name}:-gradsmith\}}", uncommented)
        assert f"{name}=gradsmith" in text  # its default is documented at the top


@pytest.mark.parametrize("target", ["api", "worker"])
def test_an_image_runs_as_nobody_special_and_has_a_health_check(target):
    lines = stage(target)
    assert "USER 10001" in lines
    assert f'"/opt/gradsmith/deploy/healthy.py", "{target}"' in lines
    assert f'CMD ["gradsmith-server", "{target}"' in lines


def test_the_worker_image_can_compile_kernels_has_the_usual_ones_and_its_user_tries_them():
    lines = stage("worker")
    steps = (
        "GRADSMITH_KERNELS=/opt/gradsmith/kernels",
        "apt-get install -y --no-install-recommends g++ ",  # rules of other sizes are compiled when a job wants them
        "COPY --from=worker-build /opt/gradsmith /opt/gradsmith\n",
        'RUN python3 -m gradsmith.rules.kernels.native "${GRADSMITH_KERNELS}"\n',
        "USER 10001\n",
        "RUN python3 -m gradsmith.rules.kernels.native --check\n",
    )
    places = [lines.index(step) for step in steps]
    assert places == sorted(places)
    assert "--create-home" in stage("base"), "what is compiled later is kept in the user's home"


def test_the_usual_kernels_are_those_of_every_built_in_family():
    used = {
        sizes
        for family in FAMILIES.values()
        for rule in (family.recipe.rule, *family.recipe.rules.values())
        if (sizes := rule.config.costs().sizes) is not None
    }
    assert used
    assert used <= set(USUAL)


def test_torch_enters_the_worker_image_alone():
    assert "COPY --from=api-build" in stage("api")
    assert re.search(r"^FROM dependencies AS api-build$", DOCKERFILE, re.M)
    for name in ("base", "dependencies", "api-build", "api"):
        assert "torch" not in stage(name)
        assert "[worker]" not in stage(name)
    assert "[torch]" in stage("worker-dependencies")


def test_every_installation_in_the_image_is_constrained():
    for line in DOCKERFILE.splitlines():
        if "pip install" in line:
            assert "-c constraints.txt" in line or "--no-deps" in line
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-slim-\w+$", DOCKERFILE, re.M)
