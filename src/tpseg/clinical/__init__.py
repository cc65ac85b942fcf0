"""Clinical formats in and out: DICOM, NIfTI, NRRD, MetaImage, video, and images too large to segment whole.

What comes in, from the outside to the pixels:
    opening     finds files and opens each as a `scan.Scan`: picture, dicom, nifti, itk, video
    dicom       series (which files, what order), dicom_file (header and stored values), grey and windows (to 8 bits)
    nifti, itk  volume (what they share), planes (how a volume is cut into frames)
    sniffing, guarding, discretion, decoding, decoder_process: files that lie, damage, or name a patient
    regions, tiles: large images, part by part

What goes out:
    results               the files of a scan, by its kind: volumes_out, video_out,
    segmentation_object   with codes (what and where), identity (which model), inheriting (the patient), geometry (where frames lie),
    measurement_report    with measures
"""
