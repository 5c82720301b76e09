from tmcnet.report.build import limit_size


def test_pictures_shrink_until_the_page_is_small_enough():
    tried = []

    def page(detail):
        tried.append(detail)
        return {}, "x" * round(1000 * detail)

    assert len(limit_size(page, 2000)[1]) == 1000 and tried == [1.0]
    tried.clear()
    assert len(limit_size(page, 600)[1]) == 500 and tried == sorted(tried, reverse=True)
    tried.clear()
    assert len(limit_size(page, 10)[1]) == round(1000 * tried[-1]), "the smallest pictures"
