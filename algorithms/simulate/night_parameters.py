"""Parameters of a simulated night: what is exposed, what the camera is like, what the sky holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from skyloom.algorithms.parameters import Parameters

__all__ = [
    "CameraParameters",
    "NightParameters",
    "PassBand",
    "PlanParameters",
    "SceneParameters",
    "SiteParameters",
]


class PlanParameters(Parameters):
    """Exposure times, light levels and conditions of the exposures of a night."""

    dark_exposure_time: float = Field(60.0, description="exposure time of darks, s", gt=0)
    flat_flux: float = Field(2000.0, description="light of the dome lamp, electron/s", gt=0)
    flat_mismatch: float = Field(
        0.003, description="relative rms by which the lamp changes between exposures", ge=0, lt=0.3
    )
    flat_gradient: float = Field(
        0.001,
        description="rms over exposures of the flats' gradients, relative at field_radius",
        ge=0,
        lt=0.3,
    )
    science_exposure_time: float = Field(60.0, description="exposure time of the sky, s", gt=0)
    faintest_sky: float = Field(
        500.0, description="faintest sky level, drawn evenly in its logarithm, electron", gt=0
    )
    brightest_sky: float = Field(3000.0, description="brightest sky level, electron", gt=0)
    sky_gradient: float = Field(
        0.03,
        description="rms over exposures of the sky's gradient along each axis, relative at "
        "field_radius",
        ge=0,
        lt=0.3,
    )
    sky_curvature: float = Field(
        0.005,
        description="rms over exposures of a term in the square of the distance from the "
        "centre, relative at field_radius",
        ge=0,
        lt=0.3,
    )
    field_radius: float = Field(
        20.0, description="distance in the focal plane that gradients refer to, mm", gt=0
    )
    dither: float = Field(30.0, description="rms of the pointings along each axis, arcsec", ge=0)
    rotation: float = Field(0.0, description="rotator angle of the sky exposures, degree")
    rotation_spread: float = Field(
        0.0, description="rms of the rotator angle between exposures, degree", ge=0
    )
    seeing: float = Field(0.9, description="median seeing at the zenith, FWHM, arcsec", gt=0)
    seeing_spread: float = Field(0.1, description="rms of the logarithm of the seeing", ge=0, lt=1)
    lowest_airmass: float = Field(1.02, description="lowest airmass", ge=1)
    highest_airmass: float = Field(1.6, description="highest airmass", ge=1)
    extinction: float = Field(0.1, description="extinction, magnitude per airmass", ge=0)
    cloud: float = Field(
        0.0, description="mean extinction by clouds, exponential between exposures, mag", ge=0
    )
    satellite_rate: float = Field(
        0.0, description="mean number of satellite trails in an exposure of the sky", ge=0
    )
    temperature: float = Field(8.0, description="temperature of the air, Celsius", gt=-60, lt=60)
    pressure: float = Field(74000.0, description="air pressure, Pa", gt=0)
    humidity: float = Field(30.0, description="relative humidity, %", ge=0, le=100)
    overhead: float = Field(5.0, description="time between two exposures, s", ge=0)
    dark_overhead: float = Field(
        1.0, description="dark time beyond the exposure time, except of biases, s", ge=0
    )


class SiteParameters(Parameters):
    """Where and when the exposures of a plan are taken, `schedule_plan`."""

    longitude: float = Field(
        -70.749417, description="of the observatory, degree, east positive", ge=-180, le=180
    )
    latitude: float = Field(-30.244639, description="of the observatory, degree", ge=-90, le=90)
    height: float = Field(2663.0, description="of the observatory above sea level, m", ge=0)
    one_a_night: bool = Field(
        True, description="each exposure of the sky is taken in a night of its own"
    )
    zero_point: float = Field(
        27.0, description="AB magnitude of one electron per second outside the atmosphere"
    )
    extinction: float = Field(
        0.1, description="extinction that the plan was made with, magnitude per airmass", ge=0
    )


class CameraParameters(Parameters):
    """What detectors are like: their patterns, response and defects."""

    plate_scale: float = Field(17.5, description="scale of the focal plane, arcsec/mm", gt=0)
    bias_gradient: float = Field(
        3.0, description="smooth bias structure of an amplifier, adu from end to end", ge=0
    )
    bias_columns: float = Field(0.6, description="column pattern of the bias, adu rms", ge=0)
    bias_pixels: float = Field(0.5, description="pixel pattern of the bias, adu rms", ge=0)
    dark_current: float = Field(0.02, description="median dark current, electron/s", ge=0)
    dark_spread: float = Field(
        0.1, description="rms of the logarithm of the dark current between pixels", ge=0
    )
    hot_pixel_fraction: float = Field(2e-4, description="fraction of hot pixels", ge=0, lt=0.1)
    hot_pixel_current: float = Field(
        10.0, description="median current of hot pixels, electron/s", ge=0
    )
    warm_columns: int = Field(1, description="columns of higher dark current per detector", ge=0)
    warm_column_current: float = Field(
        1.0, description="dark current of warm columns, electron/s", ge=0
    )
    glow: float = Field(
        0.2, description="amplifier glow in a corner of the detector, electron/s", ge=0
    )
    glow_scale: float = Field(0.06, description="reach of the glow over the detector's size", gt=0)
    detector_response: float = Field(
        0.025, description="relative scatter of the response between detectors", ge=0, lt=0.3
    )
    colour_response: float = Field(
        0.005,
        description="part of that scatter that differs between filters, relative",
        ge=0,
        lt=0.3,
    )
    amplifier_response: float = Field(
        0.003, description="relative scatter of the response between amplifiers", ge=0, lt=0.3
    )
    flat_structure: float = Field(
        0.01, description="smooth structure of the response, relative rms", ge=0, lt=0.3
    )
    vignetting: float = Field(
        0.1, description="light lost at field_radius from the centre, relative", ge=0, lt=1
    )
    field_radius: float = Field(
        20.0, description="distance in the focal plane that vignetting refers to, mm", gt=0
    )
    pixel_response: float = Field(
        0.005, description="response of pixels to each other, relative rms", ge=0, lt=0.1
    )
    sky_pattern: float = Field(
        0.01, description="rms of the sky pattern, relative to the sky level", ge=0, lt=0.3
    )
    sky_waves: int = Field(3, description="waves that make the sky pattern of a detector", ge=1)
    lowest_wave: float = Field(0.8, description="fewest cycles of a wave over the detector", ge=0)
    highest_wave: float = Field(3.0, description="most cycles of a wave over the detector", gt=0)
    fringes: dict[str, float] = Field(
        default_factory=dict,
        description="rms of fringes by filter, relative to the sky level",
    )
    fringe_cycles: float = Field(12.0, description="cycles of fringes over the detector", gt=0)
    dead_columns: int = Field(1, description="columns without response per detector", ge=0)
    traps: int = Field(2, description="column pieces of low response per detector", ge=0)
    trap_response: float = Field(0.8, description="response of traps", ge=0, le=1)
    crosstalk: float = Field(
        0.0, description="rms of the crosstalk between amplifiers of a detector", ge=0, lt=0.1
    )
    nonlinearity: float = Field(
        0.0, description="signal lost at full well, relative, growing linearly", ge=0, lt=0.3
    )


class SceneParameters(Parameters):
    """What the sky holds; fluxes are electrons per second at full response and airmass 0."""

    star_density: float = Field(12.0, description="stars per square arcminute", ge=0)
    star_slope: float = Field(
        0.7, description="slope of the number of stars brighter than a flux", gt=0
    )
    faintest_star: float = Field(3.0, description="flux of the faintest star, electron/s", gt=0)
    brightest_star: float = Field(3e4, description="flux of the brightest star, electron/s", gt=0)
    galaxy_density: float = Field(8.0, description="galaxies per square arcminute", ge=0)
    galaxy_slope: float = Field(
        1.0, description="slope of the number of galaxies brighter than a flux", gt=0
    )
    faintest_galaxy: float = Field(
        10.0, description="flux of the faintest galaxy, electron/s", gt=0
    )
    brightest_galaxy: float = Field(
        1e4, description="flux of the brightest galaxy, electron/s", gt=0
    )
    galaxy_scale: float = Field(
        0.7, description="median scale length of exponential discs, arcsec", gt=0
    )
    galaxy_scale_spread: float = Field(
        0.4, description="rms of the logarithm of scale lengths", ge=0
    )
    colour_spread: float = Field(
        0.2, description="rms of the logarithm of flux ratios between filters", ge=0
    )
    temperatures: tuple[float, float] | None = Field(
        None,
        description="limits of the temperatures of sources, black bodies, Kelvin, drawn evenly in "
        "their logarithm; none: their spectra are flat",
    )
    giant_flux: float = Field(
        0.0, description="flux of a giant galaxy of low surface brightness, electron/s", ge=0
    )
    giant_scale: float = Field(20.0, description="scale length of the giant, arcsec", gt=0)
    giant_axis_ratio: float = Field(0.7, description="axis ratio of the giant", gt=0, le=1)
    giant_offset: tuple[float, float] = Field(
        (0.0, 0.0), description="giant's offset (east, north) from the field's centre, arcsec"
    )
    giant_halo_fraction: float = Field(
        0.2, description="part of the giant's flux that is in a round halo", ge=0, le=1
    )
    giant_halo_scale: float = Field(
        3.0, description="scale length of the halo over that of the disc", gt=0
    )


class PassBand(Parameters):
    """Which light a filter lets pass, nm; its photons are spread by the atmosphere."""

    lambda_min: float = Field(description="shortest wavelength, nm", gt=230.2, lt=2058.6)
    lambda_max: float = Field(description="longest wavelength, nm", gt=230.2, lt=2058.6)
    lambda_ref: float = Field(
        description="wavelength whose light is where the world coordinates say, nm",
        gt=230.2,
        lt=2058.6,
    )
    throughput: tuple[tuple[float, float], ...] = Field(
        (), description="pairs of wavelength (nm) and throughput; flat if there are none"
    )

    @model_validator(mode="after")
    def _ordered(self) -> PassBand:
        if self.lambda_min >= self.lambda_max:
            raise ValueError(
                f"lambda_min {self.lambda_min} must be below lambda_max {self.lambda_max}"
            )
        at, passed = [pair[0] for pair in self.throughput], [pair[1] for pair in self.throughput]
        if at != sorted(set(at)) or any(one < 0 for one in passed):
            raise ValueError("throughput must be of ascending wavelengths and not negative")
        return self


class NightParameters(Parameters):
    """What a frame of a night shows besides the truth of its detector and its sky."""

    noise: bool = Field(
        True,
        description="photon and read noise; frames without noise are float32 in any case",
    )
    bias_drift: float = Field(
        1.0, description="change of the bias level between exposures, adu rms", ge=0
    )
    row_noise: float = Field(
        0.3, description="offset common to a row and its serial overscan, adu rms", ge=0
    )
    moffat_beta: float = Field(3.0, description="exponent of the point-spread function", gt=1.2)
    bands: dict[str, PassBand] = Field(
        default_factory=dict,
        description="pass-bands of filters; without one the light of a filter is not dispersed",
    )
    wavelengths: int = Field(
        24, description="wavelengths in which light is dispersed, per pass-band", ge=1
    )
    chromatic_seeing: float = Field(
        0.0, description="power of the wavelength that the seeing of stars goes with; -0.2 is usual"
    )
    faintest_wing: float = Field(
        0.02, description="surface brightness at which stars end, electron per pixel", gt=0
    )
    cosmic_ray_rate: float = Field(
        1e-6, description="cosmic rays per pixel and second of dark time", ge=0, lt=0.01
    )
    cosmic_ray_charge: float = Field(
        1500.0, description="median charge of a cosmic ray per pixel of its track, electron", gt=0
    )
    cosmic_ray_length: float = Field(
        6.0, description="mean length of the track of a cosmic ray, pixel", gt=0
    )
    satellite_brightness: float = Field(
        3e4, description="median light of satellite trails, electron per arcsec of length", gt=0
    )
    satellite_offset: float = Field(
        10.0, description="largest distance of satellite trails from the field's centre, mm", gt=0
    )
    dtype: Literal["uint16", "int32", "float32"] = Field(
        "uint16",
        description="type of the pixels; integers are rounded and clipped by the converter",
    )
