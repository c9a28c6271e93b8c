"""The task in Flower: its ``FedAvg`` strategy and its simulation runtime, on Ray.

Every client is a virtual node; Ray has one actor a core, each of one CPU and one thread, and the
strategy's only change is that the nodes of a round are told rather than drawn. An evaluation is a
federated one over all nodes. Telemetry and usage statistics are off.
"""

# pyright: reportMissingImports=false, reportArgumentType=false

import os

import numpy as np
import torch
from flower_client import app as client_app
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from protocol import Arguments, Task, Work, pinned, read, serve
from torch_models import make


class ToldFedAvg(FedAvg):
    """FedAvg over the nodes it is told, which keeps what they report."""

    nodes: list[int]

    def configure_train(self, server_round, arrays, config, grid):
        config["server-round"] = server_round
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return self._construct_messages(record, self.nodes, MessageType.TRAIN)


def nodes_of_clients(grid: Grid, clients: int) -> list[int]:
    """The node of each client, once all have been asked who they are."""
    messages = [
        Message(RecordDict({"config": ConfigRecord()}), node, MessageType.QUERY)
        for node in grid.get_node_ids()
    ]
    nodes = [0] * clients
    for reply in grid.send_and_receive(messages):
        nodes[int(reply.content["who"]["client"])] = reply.metadata.src_node_id
    return nodes


def begin(arguments: Arguments, task: Task, grid: Grid) -> Work:
    torch.set_num_threads(1)
    nodes = nodes_of_clients(grid, len(task.x))
    arrays = ArrayRecord(make(arguments.model, task.weights).state_dict())
    trainer = ToldFedAvg(fraction_evaluate=0.0)

    def one_round(cohort: np.ndarray) -> float:
        nonlocal arrays
        trainer.nodes = [nodes[client] for client in cohort]
        result = trainer.start(grid, arrays, num_rounds=1)
        arrays = result.arrays
        return float(result.train_metrics_clientapp[1]["train_loss"])

    def evaluate() -> np.ndarray:
        accuracies = np.zeros(len(nodes))

        def gather(replies, weighted_by):
            for reply in replies:
                metrics = reply["metrics"]
                accuracies[int(metrics["client"])] = metrics["accuracy"]
            return replies[0]["metrics"]

        evaluator = FedAvg(fraction_train=0.0, evaluate_metrics_aggr_fn=gather)
        evaluator.start(grid, arrays, num_rounds=1)
        return accuracies

    return Work(one_round, evaluate)


def main() -> None:
    given = pinned()
    os.environ |= {
        "BENCH_TASK_FILE": given.task_file,
        "BENCH_MODEL": given.model,
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    server_app = ServerApp()

    @server_app.main()
    def answer(grid: Grid, context: Context) -> None:
        serve(given, lambda task: begin(given, task, grid), ("flwr", "ray", "torch"))

    run_simulation(
        server_app,
        client_app,
        num_supernodes=len(read(given).x),
        backend_config={
            "init_args": {"num_cpus": given.cores, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
