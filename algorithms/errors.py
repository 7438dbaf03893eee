"""The exceptions that skyloom raises on purpose, one family, and the warnings it gives.

Misuse of a function (a wrong argument) raises ``ValueError``, ``KeyError`` or ``TypeError``
as everywhere in Python. Everything a pipeline may want to tell apart descends from
`SkyloomError`, and each message names what is wrong and what to do.
"""

__all__ = [
    "ChecksumError",
    "ConfigurationError",
    "DegenerateFitError",
    "DegenerateGeometryWarning",
    "DroppedInputWarning",
    "EmptyBackgroundWarning",
    "ExtrapolatedTemplateWarning",
    "FilledPixelsWarning",
    "GeometryError",
    "IngestError",
    "KeptVarianceWarning",
    "KnownVisitWarning",
    "NoBackgroundWarning",
    "NoSourcesWarning",
    "NoUsableDataError",
    "NoValidPixelsWarning",
    "NonFiniteVarianceWarning",
    "NotConvergedWarning",
    "PoorlyDeterminedWarning",
    "ReducedInterpolationWarning",
    "ReducedOrderWarning",
    "SchemaError",
    "SkyloomError",
    "SkyloomWarning",
    "StoreError",
    "VariableSourceWarning",
    "VisitOutlierWarning",
]


class SkyloomError(Exception):
    """Base of every error that skyloom raises on purpose."""


class ConfigurationError(SkyloomError, ValueError):
    """A configuration or camera file is wrong; the message lists every problem with its line."""


class SchemaError(SkyloomError, ValueError):
    """A dataset does not have the dimensions, variables, dtypes or units its schema asks for."""


class StoreError(SkyloomError):
    """A store cannot be opened, read or written."""


class ChecksumError(StoreError):
    """Stored bytes do not match their checksum; the message names product and chunk."""


class IngestError(SkyloomError, ValueError):
    """A file cannot be ingested; the message names file, header key and remedy."""


class GeometryError(SkyloomError, ValueError):
    """Boxes, grids or transforms contradict each other."""


class NoUsableDataError(SkyloomError, ValueError):
    """Nothing is left to measure: every pixel, bin or sample is masked or not finite."""


class DegenerateFitError(SkyloomError, ValueError):
    """A fit does not determine what it is asked for, and no gauge or prior settles it."""


class SkyloomWarning(UserWarning):
    """Base of every warning that skyloom gives: the result stands, but knows less than asked."""


class ReducedInterpolationWarning(SkyloomWarning):
    """There are too few bins for the style of interpolation; a simpler one is used."""


class ReducedOrderWarning(SkyloomWarning):
    """There are too few bins for the order of a polynomial; a lower one is used."""


class EmptyBackgroundWarning(SkyloomWarning):
    """A background has no good bin."""


class DroppedInputWarning(SkyloomWarning):
    """Inputs that cannot be used were left out."""


class NonFiniteVarianceWarning(SkyloomWarning):
    """Bins without a positive, finite variance were left out of a weighted fit."""


class PoorlyDeterminedWarning(SkyloomWarning):
    """A fit hardly determines some of its parameters; a prior, or fewer of them, settle it."""


class FilledPixelsWarning(SkyloomWarning):
    """Pixels without any usable value were filled from others and are BAD."""


class NoiseMismatchWarning(SkyloomWarning):
    """Exposures scatter far more or less than their noise, as it is known, explains."""


class KeptVarianceWarning(SkyloomWarning):
    """Variances are too far from the scatter of pixels to be believed, and stay as they are."""


class DegenerateGeometryWarning(SkyloomWarning):
    """The visits of a patch hardly differ in refraction: its colours are those of the prior."""


class ExtrapolatedTemplateWarning(SkyloomWarning):
    """A template is asked for a refraction that the visits of its model do not surround."""


class NotConvergedWarning(SkyloomWarning):
    """An iteration ended before it converged; the best result so far is returned."""


class NoBackgroundWarning(SkyloomWarning):
    """An image is crowded: no pixel of it shows the noise of the sky alone."""


class NoSourcesWarning(SkyloomWarning):
    """Nothing is detected on an image: its sub-bands are equal parts of the coadd."""


class NoValidPixelsWarning(SkyloomWarning):
    """No visit has a valid pixel: the sub-bands are equal parts of the coadd."""


class KnownVisitWarning(SkyloomWarning):
    """A visit that templates are judged on is part of the coadd that they are judged beside."""


class VariableSourceWarning(SkyloomWarning):
    """A source differs in few visits from what the others show: its pixels were left out there."""


class VisitOutlierWarning(SkyloomWarning):
    """A visit disagrees with all others; it was left out, shifted, or scaled."""
