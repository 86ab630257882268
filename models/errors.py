"""What can go wrong in the science, each with a message that a user can act on."""

from __future__ import annotations


class ModelsError(Exception):
    """Base of every error that `models` raises on purpose; `str(error)` is written for the job's owner."""


class DatasetMissing(ModelsError):
    """A family needs files that are not in the data folder."""


class DatasetCorrupt(ModelsError):
    """A data file is there, but its bytes are not the published ones."""


class BlobsUnavailable(ModelsError):
    """The store of users' data sets cannot be used: it is away, or refuses."""


class DatasetRefused(ModelsError):
    """A file that a user brings is no table that can be used: too large, truncated, or of another form."""


class UnknownKind(ModelsError):
    """A spec has a kind of family that is not registered here."""


class FamilyBroken(ModelsError):
    """The half of a kind that makes its tasks cannot be imported."""


class SpecUnreadable(ModelsError):
    """A stored spec does not fit what is installed here: another version wrote it."""


class SplitHeldOut(ModelsError):
    """Code that trains or selects asked for tasks that it must never see."""


class TrainingDiverged(ModelsError):
    """Meta-training met non-finite numbers too many times in a row to go on."""


class CheckpointMismatch(ModelsError):
    """A checkpoint belongs to another job, another format version, or is damaged."""


class DeviceUnavailable(ModelsError):
    """The job asks for a device that this worker does not have."""


class BackendUnavailable(ModelsError):
    """The job forces a backend that this worker does not have for its rule."""


class TaskSizeUnknown(ModelsError):
    """Tasks differ in size, and the job's rules have to know where the tensors of each are."""


class TooLittleMemory(ModelsError):
    """The job is predicted to need more memory than this worker has."""


class RankLost(ModelsError):
    """One of the processes of a run died, hangs, or cannot be reached: the others cannot go on, a new attempt can."""
