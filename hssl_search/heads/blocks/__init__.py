"""Blocks of heads, one module for each way to mix positions: a function named as its family makes
one.

Blocks are timm's, laid onto B x C x H x W. All take maps of any size and any number of channels.
None has a layer scale: a head lives too short for a scale that starts near zero to grow, as in the
official HSSL code.
"""
