"""The task in pfl: its ``FederatedAveraging`` and ``SimulatedBackend`` over PyTorch models.

Clients' data are tensors in memory, evaluation is off but in the very first round (pfl offers no
off switch), and the mean is weighted by examples (``WeightByDatapoints``). On two cores, two
processes of one thread each train half of the cohort, joined by torch.distributed as ``torchrun``
would start them: pfl's documented way to use more cores.
"""

# pyright: reportMissingImports=false, reportArgumentType=false

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from protocol import Arguments, Task, Work, pinned, read, serve

BATCH, LEARNING_RATE = 20, 0.1


class Trainer:
    """One process's part of every round: pfl divides the cohort among the processes by itself."""

    def __init__(self, arguments: Arguments, task: Task):
        # Only now: pfl joins the other processes while it is imported.
        import torch
        from pfl.aggregate.simulate import SimulatedBackend
        from pfl.aggregate.weighting import WeightByDatapoints
        from pfl.algorithm.federated_averaging import FederatedAveraging
        from pfl.data.dataset import Dataset
        from pfl.data.federated_dataset import FederatedDataset
        from pfl.model.pytorch import PyTorchModel
        from torch.nn import functional
        from torch_models import images, make

        torch.set_num_threads(1)
        network = make(arguments.model, task.weights)
        self.losses: list[torch.Tensor] = []

        def loss(x, y):
            value = functional.cross_entropy(network(x), y)
            self.losses.append(value.detach().clone())
            return value

        network.loss, network.metrics = loss, lambda x, y: {}  # what pfl asks of a module
        x = torch.from_numpy(images(arguments.model, task.x))
        y = torch.from_numpy(task.y.astype(np.int64))
        self.cohort: Iterator[int] = iter(())
        data = FederatedDataset(
            lambda client: Dataset((x[client], y[client]), user_id=str(client)),
            lambda: next(self.cohort),
        )
        self.backend = SimulatedBackend(data, data, [WeightByDatapoints()])
        self.algorithm = FederatedAveraging()
        self.model = PyTorchModel(
            network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0)
        )
        self.rounds = 0

    def train(self, clients: list[int]) -> float:
        """The sum of this process's losses, each before a step, over one central iteration."""
        from pfl.algorithm.base import NNAlgorithmParams
        from pfl.hyperparam.base import NNTrainHyperParams

        self.rounds += 1
        self.losses.clear()
        self.cohort = iter(clients)
        self.algorithm.run(
            NNAlgorithmParams(
                central_num_iterations=self.rounds,
                evaluation_frequency=10**9,
                train_cohort_size=len(clients),
                val_cohort_size=0,
            ),
            self.backend,
            self.model,
            NNTrainHyperParams(
                local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH
            ),
            send_metrics_to_platform=False,
        )
        return float(sum(self.losses))


def bind(rank: int) -> None:
    os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[rank]])


def elastic(rank: int, cores: int, port: int) -> dict[str, str]:
    """What torchrun tells a process of itself."""
    return {
        "TORCHELASTIC_RUN_ID": "bench",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(cores),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def second(arguments: Arguments) -> None:
    """Any process but the first: trains when it reads a cohort, and writes its losses' sum."""
    bind(int(os.environ["RANK"]))
    trainer = Trainer(arguments, read(arguments))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(trainer.train(json.loads(line))), file=answers)


def begin(arguments: Arguments, task: Task) -> Work:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    others = [
        subprocess.Popen(
            [sys.executable, *sys.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **elastic(rank, arguments.cores, port)},
        )
        for rank in range(1, arguments.cores)
    ]
    if others:
        os.environ |= elastic(0, arguments.cores, port)
    bind(0)
    trainer = Trainer(arguments, task)
    steps = task.cohorts.shape[1] * -(-task.x.shape[1] // BATCH)

    def one_round(cohort: np.ndarray) -> float:
        clients = cohort.tolist()
        for other in others:
            print(json.dumps(clients), file=other.stdin, flush=True)
        total = trainer.train(clients)
        told = [json.loads(next(iter(other.stdout or ()))) for other in others]
        return (total + sum(told)) / steps

    return Work(one_round)


if __name__ == "__main__":
    given = pinned()
    if "RANK" in os.environ:
        second(given)
    else:
        serve(given, lambda task: begin(given, task), ("pfl", "torch"))
