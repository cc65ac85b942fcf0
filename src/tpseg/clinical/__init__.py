"""Clinical formats in and out: DICOM, NIfTI, NRRD, MetaImage, video, and images too large to segment whole."""
