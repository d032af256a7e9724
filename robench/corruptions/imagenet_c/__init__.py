"""ImageNet-C by imagecorruptions: bit-identical, faster, on today's libraries."""
