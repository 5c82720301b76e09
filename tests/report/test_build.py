from tmcnet.report.build import light_enough


def test_pictures_shrink_until_the_page_is_light_enough():
    tried = []

    def page(detail):
        tried.append(detail)
        return [], "x" * round(1000 * detail)

    assert len(light_enough(page, 2000)[1]) == 1000 and tried == [1.0]
    tried.clear()
    assert len(light_enough(page, 600)[1]) == 500 and tried == sorted(tried, reverse=True)
    tried.clear()
    assert len(light_enough(page, 10)[1]) == round(1000 * tried[-1]), "the smallest there are"
