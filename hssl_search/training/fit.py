"""Whether a recipe can train a base."""

from __future__ import annotations

from hssl_search.backbones import Base, residual_blocks
from hssl_search.errors import UserError
from hssl_search.methods.base import method_class
from hssl_search.training.pair import require_patches
from hssl_search.training.recipe import Recipe


def require_fit(base: Base, recipe: Recipe) -> None:
    """Check that a base has what a recipe asks for: patch tokens to mask, local crops of another
    size, stochastic depth.

    Raises:
        UserError: for a base that lacks one of them, or whose own stochastic depth the recipe would
            replace.
    """
    require_patches(base, method_class(recipe.method.name))
    if recipe.views.local_crops:
        base.require_size(recipe.views.local_side(base.image_size))
    # timm spreads one rate over the blocks of any base, where it has stochastic depth at all.
    if recipe.proxy.drop_path or recipe.full.drop_path:
        if "drop_path_rate" in base.args:
            raise UserError(
                f"--base-arg drop_path_rate={base.args['drop_path_rate']} would not be heeded: the "
                "recipe's drop_path sets it; leave it out, or set drop_path to 0 in the recipe."
            )
        residual_blocks(base.name, base.image_size, base.args)
