"""A bare PyTorch loop, with no toolkit and no DataLoader.

One network a process, whose weights are set in place for each client; batches are views of one
tensor; a step adds the gradients to the weights, with no optimizer object. On two cores, two
processes of one thread, each with half the cohort and a core of its own, beat one process of two
threads on the MLP (45 ms against 67); on the CNN the two were not compared in the same layout. The
processes meet once a round, over weights in shared memory.
"""

# pyright: reportMissingImports=false

import os
from multiprocessing.connection import Connection

import numpy as np
import torch
import torch.multiprocessing as processes
from protocol import Arguments, Task, Work, pinned, serve
from torch.nn import functional
from torch_models import images, make

BATCH, LEARNING_RATE = 20, 0.1


class Trainer:
    """One process's share of the work, on one thread."""

    def __init__(self, arguments: Arguments, task: Task):
        torch.set_num_threads(1)
        self.network = make(arguments.model, task.weights)
        self.parameters = list(self.network.parameters())
        self.x = torch.from_numpy(images(arguments.model, task.x))
        self.y = torch.from_numpy(task.y.astype(np.int64))

    def train(self, start: list[torch.Tensor], total: list[torch.Tensor], clients) -> float:
        """Writes the clients' models' sum, weighted by examples; returns their losses' sum."""
        samples = self.x.shape[1]
        losses = torch.zeros(())
        for tensor in total:
            tensor.zero_()
        for client in clients:
            self.set(start)
            for first in range(0, samples, BATCH):
                x = self.x[client, first : first + BATCH]
                y = self.y[client, first : first + BATCH]
                loss = functional.cross_entropy(self.network(x), y)
                gradients = torch.autograd.grad(loss, self.parameters)
                with torch.no_grad():
                    for parameter, gradient in zip(self.parameters, gradients, strict=True):
                        parameter.add_(gradient, alpha=-LEARNING_RATE)
                losses += loss.detach()
            with torch.no_grad():
                for tensor, parameter in zip(total, self.parameters, strict=True):
                    tensor.add_(parameter, alpha=samples)
        return float(losses) * BATCH / samples

    def set(self, weights: list[torch.Tensor]) -> None:
        """Copies weights into the network."""
        with torch.no_grad():
            for parameter, tensor in zip(self.parameters, weights, strict=True):
                parameter.copy_(tensor)

    def correct(self, weights: list[torch.Tensor], clients) -> np.ndarray:
        """The accuracy of one model on each client's examples."""
        self.set(weights)
        with torch.inference_mode():
            right = [self.network(self.x[i]).argmax(1) == self.y[i] for i in clients]
            return torch.stack(right).float().mean(1).numpy()


def helper(orders: Connection, arguments: Arguments, task: Task, core: int, start, total) -> None:
    """A process that trains or evaluates the clients it is told of."""
    os.sched_setaffinity(0, [core])
    trainer = Trainer(arguments, task)
    while True:
        operation, clients = orders.recv()
        if operation == "train":
            orders.send(trainer.train(start, total, clients))
        else:
            orders.send(trainer.correct(start, clients))


def begin(arguments: Arguments, task: Task) -> Work:
    cores = sorted(os.sched_getaffinity(0))
    fork = processes.get_context("fork")  # before any thread is started; the data are shared
    network = make(arguments.model, task.weights)
    weights = [parameter.detach().share_memory_() for parameter in network.parameters()]
    totals = [[torch.zeros_like(w).share_memory_() for w in weights] for _ in cores]
    ends = []
    for core, total in zip(cores, totals, strict=True):
        here, there = fork.Pipe()
        settings = (there, arguments, task, core, weights, total)
        fork.Process(target=helper, args=settings, daemon=True).start()
        ends.append(here)

    def share(operation: str, clients: np.ndarray) -> list:
        for end, some in zip(ends, np.array_split(clients, len(ends)), strict=True):
            end.send((operation, some.tolist()))
        return [end.recv() for end in ends]

    def one_round(cohort: np.ndarray) -> float:
        losses = share("train", cohort)
        for tensor, *parts in zip(weights, *totals, strict=True):
            torch.div(sum(parts), task.x.shape[1] * cohort.size, out=tensor)
        return sum(losses) / cohort.size

    clients = np.arange(task.x.shape[0])
    return Work(one_round, lambda: np.concatenate(share("evaluate", clients)))


if __name__ == "__main__":
    settings = pinned()
    torch.set_num_threads(1)
    serve(settings, lambda task: begin(settings, task), ("torch",))
