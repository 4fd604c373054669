"""A federated scenario on real nodes: the apps that `flwr run` starts there.

In four terminals, with the extra federated installed; both nodes on loopback:

    flower-superlink --insecure --disable-runtime-dependency-installation
    flower-supernode --insecure --superlink 127.0.0.1:8000 --port 9094 --node-config "partition-id=0"
    flower-supernode --insecure --superlink 127.0.0.1:8000 --port 9095 --node-config "partition-id=1"
    flwr run examples/flower my-superlink --stream --run-config "scenario='/path/federated.yaml' out='/path/results'"

where ~/.flwr/config.toml says that my-superlink is at 127.0.0.1:8000 and insecure. Each node reads
the scenario and its payload, the same on all of them, from its own disk, and trains on the items
that `partition` gives to its client: client k of `clients`, so there are as many nodes. With
`noise_multiplier` the server takes its noise from a secret, which lies in federation.pt below its
`out` and which no node may read. `semsim run /path/federated.yaml --out /path/results` then
measures what was trained.
"""  # noqa: E501 - commands

from pathlib import Path

from semsim.federated.federation import OWN, Federation
from semsim.federated.flower import client_app, quiet, server_app
from semsim.scenario.scenario import Scenario
from semsim.sweep.federation import ScenarioClients

NODES = 2


def clients_of(context):
    """Return the clients of the scenario, and the folder of its training."""
    scenario = Scenario.load(str(context.run_config["scenario"])).points()[0].scenario
    out = Path(str(context.run_config["out"]))
    return ScenarioClients(scenario), out / "training" / scenario.training_hash()


def on_node(context):
    """Return the clients, and where a node keeps what is its own."""
    clients, folder = clients_of(context)
    return clients, folder / OWN


quiet()
client = client_app(on_node)
server = server_app(lambda context: Federation(*clients_of(context)), NODES)[0]
