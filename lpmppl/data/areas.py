"""The community districts of New York as a map names and places them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["PUMAS", "Area"]


@dataclass(frozen=True)
class Area:
    """An area of a map: its name, and about where its middle is, for drawing only.

    `latitude` and `longitude` are degrees, typed in to about a hundredth from general knowledge of where these
    neighbourhoods are: good enough to say who lies north of whom, and for nothing else.
    """

    name: str
    borough: str
    latitude: float
    longitude: float


def _of(borough: str, rows: str) -> dict[str, Area]:
    areas = {}
    for row in filter(None, map(str.strip, rows.splitlines())):
        code, latitude, longitude, name = row.split(maxsplit=3)
        areas[code] = Area(name, borough, float(latitude), float(longitude))
    return areas


PUMAS = MappingProxyType(
    _of(
        "Bronx",
        """
        4204 40.832 -73.921 Highbridge and Concourse
        4205 40.852 -73.911 Morris Heights and Mount Hope
        4207 40.870 -73.886 Fordham, Bedford Park and Norwood
        4208 40.888 -73.907 Riverdale, Kingsbridge and Marble Hill
        4209 40.824 -73.862 Soundview and Parkchester
        4210 40.842 -73.822 Co-op City and Throgs Neck
        4211 40.853 -73.857 Pelham Parkway and Morris Park
        4212 40.889 -73.853 Wakefield, Williamsbridge and Eastchester
        4221 40.813 -73.905 Melrose, Mott Haven, Longwood and Hunts Point
        4263 40.840 -73.890 Morrisania, Tremont, Belmont and West Farms
        """,
    )
    | _of(
        "Brooklyn",
        """
        4301 40.718 -73.945 Williamsburg and Greenpoint
        4302 40.692 -73.981 Downtown Brooklyn and Fort Greene
        4303 40.687 -73.941 Bedford-Stuyvesant
        4304 40.695 -73.916 Bushwick
        4305 40.664 -73.880 East New York and Cypress Hills
        4306 40.675 -73.990 Park Slope and Carroll Gardens
        4307 40.650 -74.003 Sunset Park and Windsor Terrace
        4308 40.674 -73.948 Crown Heights (North)
        4309 40.660 -73.952 Crown Heights (South)
        4310 40.625 -74.021 Bay Ridge and Dyker Heights
        4311 40.605 -73.995 Bensonhurst and Bath Beach
        4312 40.633 -73.985 Borough Park and Kensington
        4313 40.578 -73.982 Coney Island and Brighton Beach
        4314 40.637 -73.960 Flatbush and Midwood
        4315 40.595 -73.951 Sheepshead Bay and Gravesend
        4316 40.667 -73.911 Brownsville and Ocean Hill
        4317 40.648 -73.929 East Flatbush and Rugby
        4318 40.624 -73.912 Canarsie and Flatlands
        """,
    )
    | _of(
        "Manhattan",
        """
        4103 40.718 -73.985 Lower East Side and Chinatown
        4104 40.754 -73.998 Chelsea and Hell's Kitchen
        4107 40.788 -73.974 Upper West Side
        4108 40.773 -73.956 Upper East Side and Roosevelt Island
        4109 40.819 -73.953 Morningside Heights and Hamilton Heights
        4110 40.812 -73.943 Harlem
        4111 40.797 -73.938 East Harlem
        4112 40.850 -73.936 Washington Heights and Inwood
        4121 40.719 -74.006 Financial District and Greenwich Village
        4165 40.749 -73.978 Midtown, East Midtown and Flatiron
        """,
    )
    | _of(
        "Queens",
        """
        4401 40.770 -73.925 Astoria and Queensbridge
        4402 40.745 -73.925 Long Island City, Sunnyside and Woodside
        4403 40.757 -73.880 Jackson Heights and East Elmhurst
        4404 40.741 -73.868 Elmhurst and Corona
        4405 40.711 -73.890 Ridgewood, Glendale and Middle Village
        4406 40.725 -73.850 Forest Hills and Rego Park
        4407 40.775 -73.815 Flushing, Murray Hill and Whitestone
        4408 40.725 -73.800 Fresh Meadows, Hillcrest and Briarwood
        4409 40.698 -73.838 Kew Gardens, Richmond Hill and Woodhaven
        4410 40.670 -73.834 South Ozone Park and Howard Beach
        4411 40.758 -73.762 Bayside, Douglaston and Little Neck
        4412 40.694 -73.782 Jamaica, St. Albans and Hollis
        4413 40.700 -73.740 Queens Village, Bellerose and Rosedale
        4414 40.590 -73.810 The Rockaways
        """,
    )
    | _of(
        "Staten Island",
        """
        4501 40.630 -74.120 North Shore
        4502 40.588 -74.130 Mid-Island
        4503 40.545 -74.190 South Shore
        """,
    )
)
"""The areas by the code of the 2020 census, four digits, that the population's `puma` is labelled with.

Codes and districts: NYC Department of City Planning, "2020 Public Use Microdata Areas and community districts"; each
is one community district, or two that were joined.
"""
