"""The data sets of Neural Art, without torch: photos and paintings, and the weights of each network."""

from __future__ import annotations

from models.families.style.networks import NETWORKS
from models.tasks.published import PublishedFile, PublishedFiles

ART_FILES = PublishedFiles(
    "art",
    (
        PublishedFile("content64.npz", "f58ffd36cd4a0fa6e93ddf67765953d299b2dd6894779ae0f90dbcdb747f7fe2"),
        PublishedFile("style64.npz", "000809b7221c63f052216b91652a9f556ab4c885d0edd53e8c7c7e2bbd47dd94"),
    ),
)
NETWORK_FILES = {
    name: PublishedFiles(name, (PublishedFile(network.file, network.sha256),)) for name, network in NETWORKS.items()
}
ART = ART_FILES.data_set()
VGG, SQUEEZENET = (NETWORK_FILES[name].data_set() for name in ("vgg19-distilled", "squeezenet"))
