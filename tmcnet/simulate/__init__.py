"""Demo scenes: landscapes that stand in for real ones, with everything about them known.

A scene is an optical image, a SAR image on a grid of its own and out of register by a known field, labels with
void, and the truth. The classes separate only when both sensors are used: crops and grass look alike to the
SAR, houses and bare ground to the optical sensor, and clouds hide part of the scene from the latter.
"""
