// A file that is dropped anywhere on the page opens in the Chat tab, as if dropped on its upload.
const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
const markDrop = (marked) => document.documentElement.classList.toggle('dropping', marked);

document.addEventListener('dragover', (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault(); // otherwise the browser leaves the page to show the file
  markDrop(true);
});
document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) markDrop(false); });
document.addEventListener('drop', (event) => {
  markDrop(false);
  // Uploads have places of their own for drops.
  if (!holdsFiles(event) || event.defaultPrevented) return;
  event.preventDefault();
  document.querySelector('#tabs [role="tab"]').click();
  const input = document.querySelector('#upload input[type="file"]');
  if (!input) return; // another upload is arriving
  input.files = event.dataTransfer.files;
  input.dispatchEvent(new Event('change', {bubbles: true}));
});

// A button that takes files says so while they are on their way, which Gradio leaves unsaid.
document.addEventListener('change', (event) => {
  if (event.target.type !== 'file' || !event.target.files.length) return;
  const next = event.target.nextElementSibling;
  if (next?.matches('button')) next.classList.add('sending');
}, {capture: true});
new PerformanceObserver((list) => {
  if (!list.getEntries().some(({name}) => /\/upload(\?|$)/.test(name))) return;
  document.querySelectorAll('button.sending').forEach((button) => button.classList.remove('sending'));
}).observe({type: 'resource'});
