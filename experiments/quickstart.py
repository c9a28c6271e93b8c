"""The quickstart wired by hand: FLoRAL on digits whose labels mean four things.

    python experiments/quickstart.py --rounds 40

The same experiment as configs/quickstart.yaml's own method, on the library's lower layer, where
every part can be swapped for one's own.
"""

import argparse

import jax
import numpy as np
import optax

import floral as fl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    dataset = fl.data.federate(
        fl.data.digits(),
        partition=fl.data.iid(clients=50),
        shift=fl.data.label_shift(clusters=4),
        split={"validation": 0.15, "test": 0.25},
        unseen=10,
        seed=arguments.seed,
    )
    print(dataset.describe())

    model = fl.models.mlp(10, hidden=(200,))
    rules = [
        fl.adaptors.Rule(".*/kernel", fl.adaptors.low_rank(budget=0.05)),
        fl.adaptors.Rule(".*/bias", fl.adaptors.additive()),
    ]
    adapted = fl.adaptors.adapt(model, rules, fl.simulate.sample_batch(dataset))
    algorithm = fl.algorithms.floral(
        adapted,
        fl.losses.cross_entropy,
        fl.algorithms.local_solver(optax.sgd, learning_rate=0.1),
        fl.mixtures.discriminants(survey_rounds=1, group_rounds=1),
        num_adaptors=4,
        train=("base", "bank"),
        precondition_epsilon=1e-3,
    )
    batching = fl.data.batching(batch_size=10, epochs=2)
    simulator = fl.simulate.make_simulator(
        algorithm,
        model,
        dataset,
        metrics={"accuracy": fl.metrics.accuracy()},
        batching=batching,
        personalization=fl.simulate.Personalization(fl.data.batching(batch_size=10, steps=20)),
    )

    state = simulator.init(jax.random.key(arguments.seed))
    for taken in range(1, arguments.rounds + 1):
        state, metrics = simulator.round(state)
        if taken % 10 == 0 or taken == arguments.rounds:
            report = simulator.evaluate(state, "test", dataset.seen)
            loss = float(metrics["loss_sum"] / metrics["examples"])
            found = fl.mixtures.agreement(
                report["mixture"], dataset.traits["cluster"][dataset.seen]
            )
            print(
                f"round {taken}: train loss {loss:.3f}, test {report['accuracy'].mean():.1%}, "
                f"in their cluster {found:.0%}"
            )
    unseen = simulator.evaluate(state, "test", np.flatnonzero(dataset.unseen))
    print(f"unseen clients: {unseen['accuracy'].mean():.1%}")


if __name__ == "__main__":
    main()
