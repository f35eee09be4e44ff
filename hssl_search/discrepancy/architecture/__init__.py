"""How different two structures are, whatever their weights: `profile` combines the measures of the
other files.
"""

from hssl_search.discrepancy.architecture.profile import (
    Profile,
    architecture_discrepancy,
    base_profile,
    distance,
    head_profile,
)

__all__ = ["Profile", "architecture_discrepancy", "base_profile", "distance", "head_profile"]
