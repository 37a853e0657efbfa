"""Opportunity Insights' jobs, claims and spending: the numbers of the files, `.` for missing, and faults by name."""

from datetime import date

import numpy as np
import pytest

from lpmppl.data import opportunity

JOBS = """year,month,day_endofweek,cityid,emp,emp_incq1,emp_incq2,emp_incq3,emp_incq4,emp_incmiddle
2020,4,10,1,-.1,-.1,-.1,-.1,-.1,.
2020,4,10,2,-.32,-.322,-.463,-.298,-.227,-.38
2020,4,17,2,-.335,-.338,-.476,-.312,.,-.4
2020,4,24,2,.,.,.,.,.,.
"""
CLAIMS = """year,month,day_endofweek,cityid,initclaims_count_regular,initclaims_rate_regular
2020,4,4,2,.,.
2020,4,11,2,184530,4.53
2020,4,11,3,5,.1
2020,4,18,2,100000,2.45
"""
SPENDING = """year,month,day,freq,spend_all,spend_all_incmiddle,spend_all_q1,spend_all_q2,spend_all_q3,spend_all_q4,\
provisional
2020,1,12,d,.,.,.,.,.,.,0
2020,1,13,d,-.01,0,-.0155,.02,.03,-.0164,0
2020,1,14,d,.005,0,.01,.02,.03,-.00479,0
2020,1,21,w,.5,.5,.5,.5,.5,.5,0
"""


@pytest.fixture
def write(tmp_path):
    def text(content):
        path = tmp_path / "tracker.csv"
        path.write_text(content)
        return path

    return text


def days(dataset, dim):
    return dataset[dim].values.astype("datetime64[D]").tolist()


def test_employment(write):
    read = opportunity.employment(write(JOBS))
    assert days(read, "week") == [date(2020, 4, 10), date(2020, 4, 17)]
    assert read["employment"].values.tolist() == [-0.32, -0.335]
    np.testing.assert_array_equal(
        read["employment_by_quartile"], [[-0.322, -0.463, -0.298, -0.227], [-0.338, -0.476, -0.312, np.nan]]
    )
    assert read["quartile"].values.tolist() == ["q1", "q2", "q3", "q4"]
    assert read["employment"].attrs["units"] == "share"


def test_claims(write):
    read = opportunity.claims(write(CLAIMS))
    assert days(read, "week") == [date(2020, 4, 11), date(2020, 4, 18)]
    assert read["claims"].values.tolist() == [184_530, 100_000]
    assert read["claims"].dtype == np.int64
    assert read["claim_rate"].values.tolist() == [4.53, 2.45]


def test_spending(write):
    read = opportunity.spending(write(SPENDING))
    assert days(read, "day") == [date(2020, 1, 13), date(2020, 1, 14)]
    assert read["spending"].values.tolist() == [-0.01, 0.005]
    assert read["spending_by_quartile"].values.tolist() == [
        [-0.0155, 0.02, 0.03, -0.0164],
        [0.01, 0.02, 0.03, -0.00479],
    ]


@pytest.mark.parametrize(
    ("read", "content", "names"),
    [
        (opportunity.employment, JOBS.replace("4,17,2", "4,18,2"), ["misses 2020-04-17"]),
        (opportunity.employment, JOBS.replace("4,17,2", "4,10,2"), ["2020-04-10 twice"]),
        (opportunity.employment, JOBS.replace("-.335", "-33.5"), ["2020-04-17", "'emp' is '-33.5'", "below -1"]),
        (opportunity.employment, JOBS.replace("emp_incq2", "emp_q2"), ["no column 'emp_incq2'", "'emp_q2'"]),
        (opportunity.employment, JOBS.replace(",2,-", ",9,-").replace(",2,.", ",9,."), ["no rows of cityid 2"]),
        (opportunity.employment, JOBS.replace("-.463", "?"), ["'?'", "no number"]),
        (opportunity.claims, CLAIMS.replace("184530", "-1"), ["2020-04-11", "below 0"]),
        (opportunity.claims, CLAIMS.replace("184530", "1.5"), ["2020-04-11", "whole"]),
        (opportunity.claims, CLAIMS.replace("4.53", "."), ["2020-04-11", "'initclaims_rate_regular' is empty"]),
        (opportunity.claims, CLAIMS.replace("184530", ".").replace("100000", "."), ["holds no number"]),
        (opportunity.claims, CLAIMS.replace("2020,4,18", "2020,4,25"), ["misses 2020-04-18"]),
        (opportunity.spending, SPENDING.replace("1,14,d", "1,15,d"), ["misses 2020-01-14"]),
        (opportunity.spending, SPENDING.replace(",d,", ",w,"), ["no rows of freq d"]),
        (opportunity.spending, SPENDING.replace("-.0155", "-1.55"), ["'spend_all_q1' is '-1.55'"]),
        (opportunity.spending, SPENDING.replace("freq,", "kind,"), ["no column 'freq'"]),
    ],
)
def test_faults_are_named(write, refused, read, content, names):
    refused(read, write(content), *names)


def test_a_gap_between_numbers_is_refused(write, refused):
    holed = JOBS.replace("2,-.335,-.338,", "2,.,-.338,").replace("4,24,2,.,.", "4,24,2,-.33,-.34")
    refused(opportunity.employment, write(holed), "2020-04-17", "'emp' is empty")
    holed = JOBS.replace("-.476", ".").replace("4,24,2,.,.,.", "4,24,2,-.33,-.34,-.47")
    refused(opportunity.employment, write(holed), "2020-04-17", "'emp_incq2' is empty")


def test_published_employment_and_claims(published):
    jobs = opportunity.employment(published("nyc_oi_employment_weekly.csv"))
    assert jobs["employment"].sel(week="2020-04-17") == jobs["employment"].min() == -0.335
    assert jobs["employment_by_quartile"].sel(quartile="q4").min() == -0.229
    assert jobs["employment_by_quartile"].sel(quartile="q1").min() == -0.344
    claims = opportunity.claims(published("nyc_oi_ui_claims_weekly.csv"))
    assert claims["claims"].sel(week="2020-04-11") == 184_530
    # Both columns tell of one labour force, to the digits of the rate.
    force = 100 * claims["claims"] / claims["claim_rate"]
    assert force.std() / force.mean() < 0.01


def test_published_spending_rises_with_the_cheques(published):
    read = opportunity.spending(published("us_oi_spending_daily.csv"))
    assert days(read, "day")[0] == date(2020, 1, 13)
    before, after = (read["spending_by_quartile"].sel(day=day) for day in ("2020-04-13", "2020-04-20"))
    assert [before.sel(quartile=q).item() for q in ("q1", "q4")] == [-0.273, -0.363]
    assert [after.sel(quartile=q).item() for q in ("q1", "q4")] == [-0.132, -0.315]
