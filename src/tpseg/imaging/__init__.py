"""Clinical formats in and out: DICOM, NIfTI, NRRD, MetaImage, video, and images too large to segment whole.

`reading` opens files as scans, `writing` makes their results; between them `regions` and `tiles`: large images, part by part.
"""
