// Gradio names the pictures of a gallery by number; here the words below each say what it is.
new MutationObserver(() => {
  for (const picture of document.querySelectorAll('.thumbnail-item:has(.caption-label)')) {
    const words = picture.querySelector('.caption-label').textContent;
    if (picture.getAttribute('aria-label') !== words) picture.setAttribute('aria-label', words);
  }
}).observe(document, {
  subtree: true, childList: true, characterData: true,
  attributes: true, attributeFilter: ['aria-label'],
});
