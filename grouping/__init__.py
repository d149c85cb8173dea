"""What the connections of a translation model are for, and ways of splitting them into groups.

Model description -> connection table -> strategy -> groups.
"""

from grouping.anatomy import ModelDescription
from grouping.errors import StudyError
from grouping.groups import content_hash, partition, summary
from grouping.registry import Registry
from grouping.strategies import NotApplicable, groupings
from grouping.table import connection_table

__all__ = [
    "ModelDescription",
    "NotApplicable",
    "Registry",
    "StudyError",
    "connection_table",
    "content_hash",
    "groupings",
    "partition",
    "summary",
]
