"""The manifests of integration/kubernetes say only what the program understands."""
import os
import subprocess

import yaml

MANIFESTS = os.path.join(os.path.dirname(__file__), "..", "kubernetes")


def load(name):
    with open(os.path.join(MANIFESTS, name), encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def test_the_configuration_passes_check(outrigger, tmp_path):
    (config,) = load("configuration.yaml")
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text)
    result = subprocess.run([outrigger, "check", str(tmp_path)], capture_output=True, text=True, timeout=10)
    assert result.returncode == 0, result.stdout + result.stderr


def test_containers_give_flags_that_exist(outrigger):
    (deployment,) = load("deployment.yaml")
    for container in deployment["spec"]["template"]["spec"]["initContainers"]:
        command = container["args"][0]
        text = subprocess.run([outrigger, command, "--help"], capture_output=True, text=True, timeout=10).stdout
        flags = [word.split("=")[0] for word in container["args"] if word.startswith("--")]
        assert flags
        for flag in flags:
            assert flag in text, f"{command} {flag}"
