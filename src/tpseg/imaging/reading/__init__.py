"""From a file to pixels.

`opening` finds files and opens each as a `scan.Scan`: picture, dicom, nifti, itk, video.
`dicom`: series (which files, what order), dicom_file (header and stored values), grey and windows (to 8 bits).
`nifti`, `itk`: volume (what they share), planes (how a volume is cut into frames).
Against files that lie, are damaged or name a patient: sniffing, guarding, discretion, decoding with decoder_process.
"""
