"""Every exception of dataforge. Each says what happened (with numbers), where, and what to do.

DataforgeError                       exit code 1 and, over HTTP, an RFC 9457 problem
├── ConfigError                      a setting is wrong                                   422 config
│   └── UnknownName                  no such router, sampler, recipe key ...              422 unknown-name
├── InputError                       the user's files are at fault                        422 input
│   ├── TooManyBadRows               more unreadable rows than the allowed share          422 too-many-bad-rows
│   ├── DuplicateId                  two documents with one id                            422 duplicate-id
│   └── NothingToDo                  zero documents, empty files                          422 nothing-to-do
├── WorkspaceError                   the workspace refuses                                409 workspace
│   ├── ArtifactNotFound             no such artifact                                     404 artifact-not-found
│   ├── ArtifactIncomplete           there, but its manifest is not                       409 artifact-incomplete
│   ├── NotReproducible              the same request gave other bytes                    409 not-reproducible
│   ├── NotConserved                 in is not out + dropped                              500 not-conserved
│   └── MixedEnvironment             resumed on another device class or library           409 mixed-environment
├── CorruptData                      bytes are not what was written                       500 corrupt-data
│   ├── FormatError                  a file or frame is torn, over-long or foreign        500 format
│   └── ChecksumMismatch             a checksum differs                                   500 checksum-mismatch
├── PlanInfeasible                   the budget cannot be met                             422 plan-infeasible
├── HeldOut                          a held-out document would be trained on              422 held-out
├── ClusteringError                  more clusters than documents, no finite vectors      422 clustering
├── TokenizerError                   a tokenizer file or setting does not fit             422 tokenizer
├── StreamError                      a stream cannot go on                                503 stream
│   └── PastTheEnd                   more rows asked for than there are                   422 past-the-end
├── AccessDenied                     no key, or a wrong one                               401 access-denied
│   └── Forbidden                    the key's scopes do not allow it                     403 forbidden
├── TrainingError                    not-a-number loss, checkpoint of another model       422 training
└── MissingDependency                an optional package is not installed                 501 missing-dependency
"""

from __future__ import annotations

import re
from typing import ClassVar


class DataforgeError(Exception):
    """A stated error: `what` happened, with numbers; `where`; and a `hint` that says what to do.

    >>> print(DataforgeError("plan needs 9 draws, 6 are allowed", where="clusters/web", hint="raise `max_repeats`"))
    error: plan needs 9 draws, 6 are allowed
       in: clusters/web
     hint: raise `max_repeats`
    """

    status: ClassVar[int] = 500
    """HTTP status of the problem document."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"   in: {self.where}")
        if self.hint:
            lines.append(f" hint: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (the process pool, Ray) with all three parts.
        return (_rebuild, (type(self), self.what, self.where, self.hint))

    @classmethod
    def slug(cls) -> str:
        """The last segment of the problem type: `PlanInfeasible` gives `plan-infeasible`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__.removesuffix("Error")).lower()


def _rebuild(cls: type[DataforgeError], what: str, where: str | None, hint: str | None) -> DataforgeError:
    return cls(what, where=where, hint=hint)


class ConfigError(DataforgeError):
    """A setting is out of range or contradicts another."""

    status = 422


class UnknownName(ConfigError):
    """A name that is not registered; the hint gives the nearest."""


class InputError(DataforgeError):
    """The user's files are at fault."""

    status = 422


class TooManyBadRows(InputError):
    """More unreadable rows than the allowed share."""


class DuplicateId(InputError):
    """Two documents carry one id; both places are named."""


class NothingToDo(InputError):
    """No document is left to work on."""


class WorkspaceError(DataforgeError):
    """The workspace refuses."""

    status = 409


class ArtifactNotFound(WorkspaceError):
    """No artifact of that kind, name or id."""

    status = 404


class ArtifactIncomplete(WorkspaceError):
    """The artifact was begun and has no manifest yet."""


class NotReproducible(WorkspaceError):
    """The same request gave other content than the artifact that is already there."""


class NotConserved(WorkspaceError):
    """What came in is not what went out plus what was dropped."""

    status = 500


class MixedEnvironment(WorkspaceError):
    """Resuming would mix parts made on different device classes or library versions."""


class CorruptData(DataforgeError):
    """Bytes on disk or on the wire are not what was written."""


class FormatError(CorruptData):
    """A file or frame is torn, over-long or foreign."""


class ChecksumMismatch(CorruptData):
    """A checksum differs from the one that was recorded."""


class PlanInfeasible(DataforgeError):
    """The budget cannot be met within the repeat cap."""

    status = 422


class HeldOut(DataforgeError):
    """A held-out document would be drawn or trained on."""

    status = 422


class ClusteringError(DataforgeError):
    """Clustering cannot be done on these vectors."""

    status = 422


class TokenizerError(DataforgeError):
    """A tokenizer file or setting does not fit."""

    status = 422


class StreamError(DataforgeError):
    """A stream cannot go on."""

    status = 503


class PastTheEnd(StreamError):
    """More rows were asked for than there are."""

    status = 422


class AccessDenied(DataforgeError):
    """No API key, or one that is not known."""

    status = 401


class Forbidden(AccessDenied):
    """The key is known, its scopes do not allow this."""

    status = 403


class TrainingError(DataforgeError):
    """Training cannot go on."""

    status = 422


class MissingDependency(DataforgeError):
    """An optional package is not installed."""

    status = 501
