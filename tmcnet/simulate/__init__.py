"""Simulated demo scenes with known ground truth.

A scene has an optical image, a SAR image on another grid and misregistered by a known field, labels with void, and
the truth. The classes separate only when both sensors are used: crops and grass look alike to the SAR, houses and
bare ground to the optical sensor, and clouds hide part of the optical image.
"""
