"""Whether the rendered manifests fit together, and fit the image and the server.

    check.py RENDERED CONTAINERFILE ALTERNATOR_DNS

RENDERED is what `kubectl kustomize` printed. Prints a line "ok - ..." or "not ok - ..." for each check.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

RENDERED, CONTAINERFILE, ALTERNATOR_DNS = map(Path, sys.argv[1:])
KINDS = {"Namespace", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
failed = False


def check(condition, sentence, detail=""):
    global failed
    print(f"{'ok' if condition else 'not ok'} - {sentence}", flush=True)
    if not condition:
        failed = True
        print(detail)


def main():
    documents = list(yaml.safe_load_all(RENDERED.read_text()))
    found = {document["kind"]: document for document in documents}
    check(found.keys() == KINDS and len(documents) == len(KINDS), f"one each of {', '.join(sorted(KINDS))}", sorted(found))
    pods = found["Deployment"]["spec"]["template"]
    container = pods["spec"]["containers"][0]
    ports = {port["name"]: (port["containerPort"], port["protocol"]) for port in container["ports"]}
    text = found["ConfigMap"]["data"]["config.toml"]

    checked = subprocess.run([ALTERNATOR_DNS, "check", "-"], input=text, capture_output=True, text=True)
    said = checked.stdout + checked.stderr
    check(checked.returncode == 0, "alternator-dns check accepts the configuration of the ConfigMap", said)
    check("warning" not in said.lower(), "without a warning", said)
    server = tomllib.loads(text)["server"]
    port_of = lambda address: int(address.rpartition(":")[2])
    listen = {port_of(address) for address in server["listen"]}
    check(listen == {ports["dns"][0]} == {ports["dns-tcp"][0]}, "it listens on the container's ports", (listen, ports))
    check(port_of(server["admin"]) == ports["admin"][0], "and serves its state where the probes ask", ports)
    check(min(port for port, _ in ports.values()) >= 1024, "no port needs a capability", ports)

    service = found["Service"]["spec"]
    led = {(port["port"], port["protocol"]): ports[port["targetPort"]] for port in service["ports"]}
    check(led == {(53, "UDP"): (5353, "UDP"), (53, "TCP"): (5353, "TCP")}, "the Service leads 53 to 5353, UDP and TCP", led)
    labels = pods["metadata"]["labels"].items()
    for kind, selector in {
        "Service": service["selector"],
        "Deployment": found["Deployment"]["spec"]["selector"]["matchLabels"],
        "PodDisruptionBudget": found["PodDisruptionBudget"]["spec"].get("selector", {}).get("matchLabels", {}),
        "NetworkPolicy": found["NetworkPolicy"]["spec"]["podSelector"].get("matchLabels", {}),
    }.items():
        check(selector and selector.items() <= labels, f"the {kind} selects the pods", selector)
    budget = found["PodDisruptionBudget"]["spec"]["minAvailable"]
    check(found["Deployment"]["spec"]["replicas"] > budget, "a node can be drained: there is a pod more than must be available")

    for probe, path in {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}.items():
        asked = container[probe]["httpGet"]
        check(asked == {"path": path, "port": "admin"}, f"the {probe} asks {path}", asked)
    security = container["securityContext"]
    user = pods["spec"]["securityContext"]["runAsUser"]
    image = re.search(r"^USER (\d+)", CONTAINERFILE.read_text(), re.M)[1]
    check(user == int(image) != 0, f"the user is {user}, that of the image", image)
    check(
        security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        and security["capabilities"] == {"drop": ["ALL"]},
        "read-only root, no capabilities", security,
    )
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    named = set(re.findall(r"(?:STATE|RUNTIME)_DIRECTORY=(\S+)", CONTAINERFILE.read_text()))
    check(writable == named, f"writable are the directories that the image names: {', '.join(sorted(named))}", writable)
    sys.exit(failed)


main()
