"""Kubernetes objects as dictionaries, and a directory that changes the way Kubernetes changes a mounted ConfigMap."""

import json
import os
import shutil


def service(name, cluster_ip, ports, namespace="shop", cluster_ips=None, selector=None):
    """`ports` is a list of port(...); `cluster_ip` None or "None" makes it headless."""
    ips = cluster_ips or ([cluster_ip] if cluster_ip else [])
    spec = {"clusterIP": cluster_ip or "None", "clusterIPs": ips or ["None"], "ports": ports, "type": "ClusterIP"}
    if selector:
        spec["selector"] = selector
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def port(number, name=None, app_protocol=None, target=None):
    entry = {"port": number, "protocol": "TCP", "targetPort": target or number}
    if name:
        entry["name"] = name
    if app_protocol:
        entry["appProtocol"] = app_protocol
    return entry


def endpoint_slice(service_name, addresses, port_number, port_name=None, namespace="shop", suffix="abcde", ready=True,
                   pods=None):
    """One endpoint for each address, all ready (or none); `pods` names the pod of each, as two slices of a dual-stack pod do."""
    family = "IPv6" if any(":" in address for address in addresses) else "IPv4"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": f"{service_name}-{suffix}",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": family,
        "ports": [{"name": port_name or "", "port": port_number, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [address],
            "conditions": {"ready": ready},
            **({"targetRef": {"kind": "Pod", "namespace": namespace, "name": pods[at]}} if pods else {}),
        } for at, address in enumerate(addresses)],
    }


def http_route(name, parent, rules, namespace="shop", parent_port=None, created="2026-01-01T00:00:00Z"):
    reference = {"group": "", "kind": "Service", "name": parent}
    if parent_port:
        reference["port"] = parent_port
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created},
        "spec": {"parentRefs": [reference], "rules": rules},
    }


def rule(backends=None, matches=None, filters=None, **more):
    """`backends` is a list of backend(...); what is None is left out."""
    fields = {"backendRefs": backends, "matches": matches, "filters": filters, **more}
    return {key: value for key, value in fields.items() if value is not None}


def backend(name, port_number, weight=None):
    reference = {"name": name, "port": port_number}
    if weight is not None:
        reference["weight"] = weight
    return reference


def path(value, kind="PathPrefix"):
    return {"path": {"type": kind, "value": value}}


def header(name, value, kind="Exact"):
    return {"headers": [{"name": name, "value": value, "type": kind}]}


class ConfigDirectory:
    """Files as a ConfigMap volume shows them: NAME -> ..data/NAME, ..data -> a directory that is swapped by a rename."""

    def __init__(self, path, *items):
        self.path = str(path)
        self.turn = 0
        os.makedirs(self.path, exist_ok=True)
        os.chmod(self.path, 0o755)
        self.write(*items)

    def write(self, *items, name="objects.yaml"):
        """Swap the content for one file that holds these objects (JSON is YAML)."""
        self.write_files({name: "".join("---\n" + json.dumps(item, indent=1) + "\n" for item in items)})

    def write_files(self, files):
        self.turn += 1
        directory = f"..2026_11_24_{self.turn:06d}"
        full = os.path.join(self.path, directory)
        os.mkdir(full, 0o755)
        os.chmod(full, 0o755)
        for name, text in files.items():
            with open(os.path.join(full, name), "w") as file:
                file.write(text)
        data = os.path.join(self.path, "..data")
        before = os.readlink(data) if os.path.islink(data) else None
        os.symlink(directory, data + "_tmp")
        os.rename(data + "_tmp", data)
        for name in files:
            link = os.path.join(self.path, name)
            if not os.path.islink(link):
                os.symlink(os.path.join("..data", name), link)
        for name in os.listdir(self.path):
            if not name.startswith("..") and name not in files:
                os.unlink(os.path.join(self.path, name))
        if before is not None:
            shutil.rmtree(os.path.join(self.path, before))
