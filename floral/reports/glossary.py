"""What the columns of the report's tables mean, in a line each."""

from collections.abc import Iterable

__all__ = ["glossary"]

_MEANINGS = {
    "accuracy": "mean over the clients that train, of each client's own model on its own data, at "
    "the last round; so is a loss.",
    "spread over clients": "the standard deviation over clients; not over seeds.",
    "over all examples": "every example counts alike, not every client.",
    "worst 10 % of clients": "the mean over the tenth of the clients that do worst.",
    "unseen clients": "the mean over clients that never trained and join at the end.",
    "global model": "what the clients that train would have without a part of their own: for "
    "mixtures the uniform one, for models of one's own the server's.",
    "at the best round": "the first column, at the round that validated best.",
    "groups found": "the share of clients whose largest weight names their true group.",
    "sent a round": "bytes that one client sends each round; MB are 10^6 bytes.",
    "received once": "bytes that a client receives a single time, since they never change.",
    "sent while groups are found": "bytes that one client sends beside, in the first rounds alone.",
    "kept by a client": "bytes that a client keeps between rounds.",
    "compile": "seconds in which programs were traced and compiled, for training and evaluation.",
    "total": "all wall time, saving and the trials of restarts included.",
    "rounds a second": "of training alone.",
    "adaptors used": "by a client, effectively: the exponential of its mixture's entropy.",
    "adaptors unused": "those whose share of all clients is below a tenth of an equal share.",
    "evenness": "the mixtures' mean entropy, over its largest value: 1 is the uniform mixture.",
    "clients per adaptor": "how many clients of equal weight would average as well; fewest: of the "
    "adaptor with the fewest.",
    "loss above the best adaptor": "what the mean client would gain by the best single adaptor for "
    "it, on validation examples, or where there are none on training examples.",
    "distance to true groups": "how far adaptors are from averaging the true groups, 0 to 2; its "
    "decay: the power of rounds by which its square falls.",
    "gradient variance, base": "of clients' gradients; left after averaging: in the mean over all "
    "clients, or over those of an adaptor.",
    "averaging gap": "what the average of factors misses of that of products, relative to it.",
}


def glossary(titles: Iterable[str]) -> str:
    """Markdown: a line for each word that these column titles have."""
    titles = list(titles)
    lines = [
        f"- *{word}*: {meaning}"
        for word, meaning in _MEANINGS.items()
        if any(word == title or word in title.split() for title in titles)
    ]
    return "\n".join(lines)
