"""The page answers to this machine alone, carries a policy, needs Gradio, and is what the Space's example serves."""

import gc
import importlib.util
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models import tiny_model
from scripted import Scripted

from lf_export.errors import InputError, MissingError
from lf_export.functions.dialects import dialect_for
from lf_export.trial import Trial, serve
from lf_export.trial.asked import read_functions, read_message
from lf_export.trial.examples import shipped_examples
from lf_export.trial.serve import application, is_loopback

# Gradio leaves event loops open; they are collected here, so that no other test is blamed for them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


def trial() -> Trial:
    return Trial([Scripted("a", ["x"])], dialect_for("llama-functions"))  # type: ignore[list-item]


def get(app: Any, host: str) -> Any:
    from starlette.testclient import TestClient

    return TestClient(app, base_url=f"http://{host}").get("/")


@pytest.fixture(scope="module")
def app() -> Any:
    return application(trial())


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "[::1]:7860"])
def test_the_page_is_served_under_this_machines_names(app: Any, host: str) -> None:
    answer = get(app, host)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "window.gradio_config" in answer.text
    assert '"analytics_enabled":false' in answer.text.replace(" ", "")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "192.168.1.4"])
def test_another_name_is_refused_unless_the_page_is_open_to_all(app: Any, host: str) -> None:
    assert get(app, host).status_code == 421
    assert get(application(trial(), loopback=False), host).status_code == 200


def test_only_loopback_addresses_are_taken_for_such() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"))  # noqa: S104


def test_a_port_that_is_taken_is_named_and_the_children_are_ended() -> None:
    artifact = Scripted("a", ["x"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: cannot be listened at"):
            serve(Trial([artifact], dialect_for("llama-functions")), "127.0.0.1", port, ready=print)  # type: ignore[list-item]
    assert artifact.closed


def test_without_gradio_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingError) as caught:
        application(trial())
    assert caught.value.hint == "pip install 'lf-export[try]'"


def test_every_example_can_be_asked() -> None:
    examples = shipped_examples()
    assert len(examples) == len({each.label for each in examples}) >= 40
    assert any(not each.functions for each in examples)
    for each in examples:
        read_functions(each.functions)
        read_message(each.message)
        assert each.reference
    assert examples == shipped_examples()


def test_the_spaces_example_serves_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("space_app", ROOT / "docs" / "how-to" / "space" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("ARTIFACT", str(tiny_model(tmp_path / "tiny", max_position_embeddings=4096)))
    served: list[Any] = []

    def instead(made: Trial, host: str, port: int, *, ready: Any) -> None:  # noqa: ARG001
        served.append((get(application(made, loopback=is_loopback(host)), "name.hf.space").status_code, port))
        *_, (last,) = made.ask(shipped_examples()[0].functions, "Hi", 4)
        served.append(last.state)
        made.close()

    monkeypatch.setattr(module, "serve", instead)
    module.main()
    assert served == [(200, 7860), "done"]
