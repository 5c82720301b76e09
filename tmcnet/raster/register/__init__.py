"""Optical-SAR co-registration: estimate how far a SAR image is displaced from an optical one on the same grid.

The method, from coarse to fine:

1. `matching`: each pixel is described by its gradient strength along eight orientations; windows of descriptors are
   compared by normalised cross-correlation.
2. `coarse_to_fine.global_search`: one shift, rotation and scale for the whole scene at low resolution.
3. `tie_points`: windows on a grid are matched forward and backward, after warping by the map known so far. Inliers
   are displaced like their neighbours; `rejection_reason` rejects pairs with few inliers, or no more than by chance.
4. `model_selection`: shift, affine, quadratic or thin-plate map, selected by the RMSE at tie points in
   held-out parts of the scene. Steps 3 and 4 are repeated at each level up to full resolution.
5. `coarse_to_fine.estimate`: the correction is accepted if it moves the inliers by a pixel and more than its
   uncertainty, has a small held-out RMSE, and raises the similarity of most windows; the result is an
   `alignment.Alignment`, with the map or the reason for none.
   Without a correction the georeference is kept if the images match in place, else the pair is rejected: by the tie
   points, or where they are too few by the mean correlation of all windows, which may also show a common shift.
"""

from tmcnet.raster.register.coarse_to_fine import estimate, warp

__all__ = ["estimate", "warp"]
