// The cards of a search. Gradio provides `element`, `trigger` and `watch`. Events: "select" {index}
// opens a result, "mark" {index, wanted} marks it (wanted is null for no mark), "locate" {index} shows
// it on the map, "turn" {page} shows another page.
let turned = false;

const actions = {
  open: ({index}) => trigger('select', {index, value: index}),
  locate: ({index}) => trigger('locate', {index}),
  like: ({index}, button) => mark(index, true, button),
  dislike: ({index}, button) => mark(index, false, button),
  turn: ({page}) => { turned = true; trigger('turn', {page}); },
};

function mark(index, wanted, button) {
  const pressed = button.getAttribute('aria-pressed') === 'true';
  for (const each of button.parentElement.querySelectorAll('[aria-pressed]'))
    each.setAttribute('aria-pressed', String(each === button && !pressed));
  trigger('mark', {index, wanted: pressed ? null : wanted});
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]');
  if (!button) return;
  const {index, page} = button.dataset;
  actions[button.dataset.do]({index: Number(index), page: Number(page)}, button);
});

// Another page begins at its first scene, also for the keyboard.
watch('value', () => {
  if (!turned) return;
  turned = false;
  const first = element.querySelector('.open');
  first?.focus({preventScroll: true});
  element.scrollIntoView({block: 'start'});
});
