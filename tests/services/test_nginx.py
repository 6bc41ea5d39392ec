"""nginx of Debian, served from a container in the background on the host's network."""

import re
import socket
import time
import urllib.error
import urllib.request

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]

CONFIG = """daemon off;
error_log /dev/stderr notice;
events {{}}
http {{
    access_log /dev/stdout;
    server {{
        listen 127.0.0.1:{port};
        root /srv/www;
        location = /where {{ return 200 "{word}"; }}
    }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_served_reloaded_logged_entered_stopped(layerfs, runtime, tmp_path):
    port = free_port()
    site, config = tmp_path / "www", tmp_path / "nginx.conf"
    site.mkdir()
    (site / "index.html").write_text("from the host\n")
    config.write_text(CONFIG.format(port=port, word="before"))
    layerfs(
        "run", "-d", "--name", "web", "--runtime", runtime, "-v", f"{site}:/srv/www:ro",
        "servers", "nginx", "-c", "/etc/nginx/test.conf", code=0,
    )  # fmt: skip
    # Without its configuration it ends by itself, and says why.
    assert layerfs("wait", "web").strip() == "1"
    assert "/etc/nginx/test.conf" in layerfs.process("logs", "web").stderr.decode()
    layerfs("cp", config, "web:/etc/nginx/test.conf")
    layerfs("start", "web")
    wait_for(lambda: get(port, "/") == "from the host\n")
    assert get(port, "/where") == "before"

    config.write_text(CONFIG.format(port=port, word="after"))
    layerfs("cp", config, "web:/etc/nginx/test.conf")
    layerfs("kill", "-s", "HUP", "web")
    wait_for(lambda: get(port, "/where") == "after")

    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(port, "/nothing")
    wait_for(lambda: '"GET /nothing HTTP/1.1" 404' in layerfs("logs", "web"))
    assert "reconfiguring" in layerfs.process("logs", "web").stderr.decode()

    # Entered: it sees its own processes alone, the master as number 1.
    assert layerfs("exec", "web", "cat", "/proc/1/comm") == "nginx\n"
    assert layerfs("exec", "-u", "www-data", "web", "id", "-un") == "www-data\n"
    assert layerfs("exec", "web", "nginx", "-t", "-c", "/etc/nginx/test.conf") == ""
    assert len(re.findall("nginx: ", layerfs("top", "web"))) >= 2

    began = time.monotonic()
    layerfs("stop", "web")
    assert time.monotonic() - began < 8  # it heard the signal
    assert layerfs("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web").strip() == "exited 0"
    with pytest.raises(OSError, match="refused"):
        get(port, "/")
